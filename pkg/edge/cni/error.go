// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Code is an error code of the specification, section "Error".
type Code int

// Codes 0-99 are the specification's own; 100 and above are a plugin's.
const (
	CodeIncompatibleVersion Code = 1
	CodeUnsupportedField    Code = 2
	CodeUnknownContainer    Code = 3
	CodeInvalidEnvironment  Code = 4
	CodeIO                  Code = 5
	CodeDecode              Code = 6
	CodeInvalidConfig       Code = 7
	CodeInvalidNetns        Code = 8
	CodeTryAgainLater       Code = 11
	CodeNotAvailable        Code = 50 // STATUS: the plugin cannot serve an ADD
	CodeLimitedConnectivity Code = 51 // STATUS: it can, but existing containers may be cut off
	CodeCheckFailed         Code = 100
	CodeNoAddress           Code = 101 // every address of the pool is taken
	CodeConflict            Code = 102 // somebody else holds what was asked for
	CodeInternal            Code = 999
)

// Error is what a runtime is told. Details may be empty.
type Error struct {
	Code    Code
	Msg     string
	Details string
	cause   error
}

// Errorf makes an Error in the manner of fmt.Errorf, %w included.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Msg: err.Error(), cause: errors.Unwrap(err)}
}

func (e *Error) Error() string {
	if e.Details != "" {
		return e.Msg + ": " + e.Details
	}
	return e.Msg
}

// Unwrap gives the error that Errorf's %w named, if any.
func (e *Error) Unwrap() error { return e.cause }

// asError finds the code in err; an error without one is CodeInternal. The text is always err's whole text.
func asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: CodeInternal, Msg: err.Error()}
	}
	if e == err { //nolint:errorlint // the very error, not one that wraps it
		return e
	}
	return &Error{Code: e.Code, Msg: err.Error()}
}

// encode is the error object of the specification; version is the one the configuration asked for.
func (e *Error) encode(version string) []byte {
	b, err := json.Marshal(struct {
		Version string `json:"cniVersion,omitempty"`
		Code    Code   `json:"code"`
		Msg     string `json:"msg"`
		Details string `json:"details,omitempty"`
	}{version, e.Code, e.Msg, e.Details})
	if err != nil {
		panic("cni: encoding plain values: " + err.Error())
	}
	return append(b, '\n')
}

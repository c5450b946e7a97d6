// SPDX-License-Identifier: Apache-2.0

// Package rawjson takes small JSON documents apart, and puts them together, without reflection.
//
// encoding/json builds tables for every type that it meets, which costs a plugin that lives two milliseconds a tenth of
// its life. This package reads the same documents: what is not valid JSON for encoding/json is not for it either, and
// values that are not plain go to encoding/json.
package rawjson

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Value is the text of one JSON value, valid and without space around it.
type Value []byte

// IsNull reports a missing value or null.
func (v Value) IsNull() bool { return len(v) == 0 || string(v) == "null" }

// Object is a JSON object. Of a name that occurs twice the last value counts, as in encoding/json.
type Object map[string]Value

// Get finds a name, in any letter case if not in that one, as encoding/json does.
func (o Object) Get(name string) Value {
	if v, ok := o[name]; ok {
		return v
	}
	for k, v := range o {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

// ParseObject reads a whole document that is an object; null is an empty one.
func ParseObject(data []byte) (Object, error) {
	if !json.Valid(data) {
		var v any
		return nil, json.Unmarshal(data, &v) // says what is wrong, and where
	}
	return Value(trim(data)).Object()
}

// Object takes the value apart; null is an empty object.
func (v Value) Object() (Object, error) {
	if v.IsNull() {
		return nil, nil
	}
	if v[0] != '{' {
		return nil, misfit(v, "an object")
	}
	o := Object{}
	for rest := trim(v[1 : len(v)-1]); len(rest) > 0; {
		var name, value []byte
		name, rest = first(rest)
		value, rest = first(trim(trim(rest)[1:])) // behind the colon
		var key string
		if err := Value(name).Decode(&key); err != nil {
			return nil, err
		}
		o[key] = value
		if rest = trim(rest); len(rest) > 0 {
			rest = trim(rest[1:]) // behind the comma
		}
	}
	return o, nil
}

// Array takes the value apart; null is an empty array.
func (v Value) Array() (out []Value, err error) {
	if v.IsNull() {
		return nil, nil
	}
	if v[0] != '[' {
		return nil, misfit(v, "a list")
	}
	for rest := trim(v[1 : len(v)-1]); len(rest) > 0; {
		var value []byte
		value, rest = first(rest)
		out = append(out, value)
		if rest = trim(rest); len(rest) > 0 {
			rest = trim(rest[1:])
		}
	}
	return out, nil
}

// Decode reads the value into what into points to, and leaves that alone when the value is missing or null.
func (v Value) Decode(into any) error {
	if v.IsNull() {
		return nil
	}
	switch p := into.(type) {
	case *string:
		if v[0] == '"' && strings.IndexByte(string(v), '\\') < 0 && utf8.Valid(v) {
			*p = string(v[1 : len(v)-1])
			return nil
		}
	case *bool:
		if s := string(v); s == "true" || s == "false" {
			*p = s == "true"
			return nil
		}
	case **bool:
		b := new(bool)
		*p = b
		return v.Decode(b)
	case *int:
		if n, err := strconv.Atoi(string(v)); err == nil {
			*p = n
			return nil
		}
	case *Value:
		*p = v
		return nil
	}
	if err := json.Unmarshal(v, into); err != nil {
		return plain(v, into, err)
	}
	return nil
}

// plain says what encoding/json said of a value without speaking of Go's types.
func plain(v Value, into any, err error) error {
	switch into.(type) {
	case *string, **string:
		return misfit(v, "a text")
	case *bool, **bool:
		return misfit(v, "true or false")
	case *int, **int:
		return misfit(v, "a number")
	case *uint32, **uint32:
		return misfit(v, "a number from 0 to 4294967295")
	case *[]string:
		return misfit(v, "a list of texts")
	}
	return err
}

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil {
				panic("rawjson: encoding a string: " + err.Error())
			}
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// first splits off the first value of a run of valid values.
func first(b []byte) (value, rest []byte) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case depth == 0 && (c == ',' || c == ':' || isSpace(c)):
			return b[:i], b[i:]
		}
	}
	return b, nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// trim drops space at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

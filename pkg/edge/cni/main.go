// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/version"
)

// Verbs are what a plugin does. Add returns the result that the runtime is to see; DEL must succeed when repeated.
type Verbs struct {
	Add                    func(*Call) (*Result, error)
	Check, Del, GC, Status func(*Call) error
	// Problems says what is wrong with the plugin's own keys, and changes nothing. It may be nil. It is asked only when
	// something else is wrong with the configuration, so that a person gets to see everything at once.
	Problems func(*Call) error
}

// Main runs the verb that the environment asks for and exits: 0, or 1 with the error object on stdout.
// Without CNI_COMMAND it says what it is; with --version it prints NAME VERSION.
func Main(name string, v Verbs) {
	if len(os.Args) > 1 && (os.Args[1] == "--version" || os.Args[1] == "-version") {
		fmt.Println(name, version.Version)
		return
	}
	os.Exit(run(name, v, os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// run is Main with its world passed in.
func run(name string, v Verbs, env func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	switch env("CNI_COMMAND") {
	case "":
		_, _ = fmt.Fprintf(stderr, "%s %s: a CNI plugin, speaks versions %s; a container runtime runs it\n",
			name, version.Version, strings.Join(versions, ", "))
		return 1
	case "VERSION":
		return write(stdout, versionInfo())
	case "ADD", "DEL", "CHECK", "GC", "STATUS":
	default:
		err := &Error{Code: CodeInvalidEnvironment, Msg: fmt.Sprintf("CNI_COMMAND: %q is not a command", env("CNI_COMMAND"))}
		write(stdout, err.encode(""))
		return 1
	}
	var in bytes.Buffer
	if _, err := in.ReadFrom(stdin); err != nil {
		write(stdout, (&Error{Code: CodeIO, Msg: "read stdin: " + err.Error()}).encode(""))
		return 1
	}
	call, err := parseCall(env, in.Bytes())
	var result *Result
	if err == nil {
		err = call.sound(v)
	}
	if err == nil {
		result, err = v.do(call)
	}
	if err != nil {
		write(stdout, asError(err).encode(call.Net.CNIVersion))
		return 1
	}
	if result == nil {
		return 0
	}
	return write(stdout, result.Encode(call.Net.CNIVersion))
}

func (v Verbs) do(c *Call) (*Result, error) {
	switch c.Command {
	case "ADD":
		return v.Add(c)
	case "DEL":
		return nil, v.Del(c)
	case "CHECK":
		return nil, v.Check(c)
	case "GC":
		return nil, v.GC(c)
	default:
		return nil, v.Status(c)
	}
}

func write(w io.Writer, data []byte) int {
	if _, err := w.Write(data); err != nil {
		return 1
	}
	return 0
}

func versionInfo() []byte {
	b, err := json.Marshal(struct {
		Version   string   `json:"cniVersion"`
		Supported []string `json:"supportedVersions"`
	}{versions[len(versions)-1], versions})
	if err != nil {
		panic("cni: encoding plain values: " + err.Error())
	}
	return append(b, '\n')
}

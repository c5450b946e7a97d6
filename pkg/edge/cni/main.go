// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/version"
)

// Verbs are what a plugin does. Add returns the result that the runtime is to see; DEL must succeed when repeated. Del also
// undoes an Add whose runtime is gone, and sees the ADD's Call then.
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
	signal.Ignore(syscall.SIGPIPE) // a plugin whose runtime is gone has something to undo
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
	code := write(stdout, result.Encode(call.Net.CNIVersion))
	if code != 0 && v.Del(call) != nil {
		code = 2 // nobody hears it
	}
	return code
}

func (v Verbs) do(c *Call) (*Result, error) {
	switch c.Command {
	case "ADD":
		return v.add(c)
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

// add is Add for a runtime that may have been killed, come back, and be done with the container meanwhile: it has asked
// for its DEL then, and will not again, so what Add makes behind that is undone here. Either the namespace is not the same any
// more, or nobody takes the result.
func (v Verbs) add(c *Call) (*Result, error) {
	before, err := identify(c.Netns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Errorf(CodeUnknownContainer, "CNI_NETNS: %w", err)
	}
	if err != nil {
		return nil, Errorf(CodeInvalidNetns, "CNI_NETNS: %w", err)
	}
	r, err := v.Add(c)
	if err != nil {
		return nil, err
	}
	if after, err := identify(c.Netns); err != nil || after != before {
		return nil, errors.Join(Errorf(CodeUnknownContainer, "CNI_NETNS: %s went away during the ADD", c.Netns), v.Del(c))
	}
	return r, nil
}

// inode tells namespaces apart, as long as they live.
type inode struct{ dev, ino uint64 }

func identify(path string) (inode, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return inode{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return inode{st.Dev, st.Ino}, nil
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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/cni"
)

// portald is the socket to ask, by the configuration's key portaldSocket.
func portald(c *cni.Call) (string, error) {
	conf := struct {
		Socket string `json:"portaldSocket"`
	}{mark.PortaldSocket}
	if err := json.Unmarshal(c.Config, &conf); err != nil {
		return "", cni.Errorf(cni.CodeDecode, "read configuration: %w", err)
	}
	return conf.Socket, nil
}

// services asks a portald that runs whether services are in force: until they are, the node should not be given pods.
// No portald, or one that is just being restarted, is no reason to hold pods back: the kernel answers without it.
// It speaks HTTP by hand, because net/http would cost every ADD its start.
func services(socket string) error {
	answer, err := ask(socket, "GET /healthz HTTP/1.0\r\n\r\n")
	if err != nil {
		return nil //nolint:nilerr // nobody there
	}
	head, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if bytes.HasPrefix(head, []byte("HTTP/1.")) && !bytes.Contains(head[:min(len(head), 12)], []byte(" 200")) {
		return cni.Errorf(cni.CodeNotAvailable, "portald: %s", bytes.TrimSpace(body))
	}
	return nil
}

// ask sends one request over a unix socket and returns what comes back within a second.
func ask(path, request string) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost
	second := unix.Timeval{Sec: 1}
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &second),
	); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return nil, err
	}
	var out []byte
	buf := make([]byte, 4096)
	for len(out) < 64<<10 {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return out, err
		}
		out = append(out, buf[:n]...)
	}
	return out, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// portald is the socket to ask. Where the configuration names it by portaldSocket, a portald is expected on this node.
func (r rawConfig) portald() (socket string, expected bool) {
	if r.PortaldSocket == "" {
		return mark.PortaldSocket, false
	}
	return r.PortaldSocket, true
}

// services asks portald whether services are in force: until they are, the node should not be given pods. Where none
// answers it is no reason to hold pods back if nobody expects one, or if it has programmed the kernel before, which then
// answers without it. It speaks HTTP by hand, because net/http would cost every ADD its start.
func services(h *nft.HostPorts, socket string, expected bool) error {
	answer, err := ask(socket, "GET /healthz HTTP/1.0\r\n\r\n")
	if err != nil {
		if !expected {
			return nil
		}
		if stand, serr := h.ServicesStand(); serr != nil || stand {
			return serr
		}
		return cni.Errorf(cni.CodeNotAvailable, "no portald answers at %s, and none has since the node started: %w", socket, err)
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

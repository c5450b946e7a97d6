// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab/place"
)

// udpClient sends from one port all its life, as a client that knows nothing of pods coming and going.
type udpClient struct{ net.Conn }

func dialUDP(t *testing.T, from *place.Place, addr string) udpClient {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return udpClient{conn}
}

// ask sends a datagram and returns who answered, and whom that saw. Answers to earlier ones do not count.
func (c udpClient) ask() (who, saw string, err error) {
	buf := make([]byte, 1500)
	for err = c.SetReadDeadline(time.Now().Add(time.Millisecond)); err == nil; {
		_, err = c.Read(buf) // to the last of what has come, or the error that an ICMP message left
	}
	if _, err := c.Write([]byte("who?")); err != nil {
		return "", "", err
	}
	if err := c.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
		return "", "", err
	}
	n, err := c.Read(buf)
	who, saw, _ = strings.Cut(string(buf[:n]), " ")
	return who, saw, err
}

// answers wants the answer of that server.
func (c udpClient) answers(server string) error {
	who, _, err := c.ask()
	if err == nil && who != server {
		err = fmt.Errorf("%s answers at %s, want %s", who, c.RemoteAddr(), server)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestFirstByte(t *testing.T) {
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nstest.Run(t, h, "ip", "link", "set", "lo", "up")
	header := bytes.Repeat([]byte{0xff}, 16)
	for _, c := range []struct {
		name string
		say  []byte
		then func(net.Conn)
		want string
	}{
		{"an OPEN", append(header, 0, 29, 1, 4, 0), func(net.Conn) {}, ""},
		{"no, at once", append(header, 0, 21, 3, 6, 2), func(net.Conn) {}, "refused the session: NOTIFICATION 6/2"},
		{"the end of the connection", nil, func(c net.Conn) { _ = c.Close() }, "closed the connection before its OPEN: EOF"},
		{"nothing", nil, func(net.Conn) {}, ErrSilent.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			conn, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			if _, err := far.Write(c.say); err != nil {
				t.Fatal(err)
			}
			c.then(far)
			err = FirstByte(conn.(*net.TCPConn), 300*time.Millisecond)
			if got := errText(err); got != c.want || c.want == ErrSilent.Error() != errors.Is(err, ErrSilent) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if len(c.say) > 0 { // it was looked at, not taken
				got := make([]byte, len(c.say))
				if _, err := conn.Read(got); err != nil || !bytes.Equal(got, c.say) {
					t.Errorf("then came %x %v", got, err)
				}
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}

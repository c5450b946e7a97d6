// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The feeder is a BGP speaker that knows one trick: it brings up a session and sends UPDATEs that were encoded before.
// It costs next to nothing, so that what is measured is the daemon that it feeds.

// Message types (RFC 4271 section 4.1).
const (
	msgOpen         = 1
	msgUpdate       = 2
	msgNotification = 3
	msgKeepalive    = 4
)

const (
	switchASN     = 64512 // of the switch, or of the feeder in its place
	feederHold    = 90
	nlriPerUpdate = 900 // /24s: 3,600 bytes of the 4,096 that a message may have
)

// message puts the header before a body.
func message(typ byte, body []byte) []byte {
	m := append(make([]byte, 0, 19+len(body)), bytes.Repeat([]byte{0xff}, 16)...)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, typ), body...)
}

// openMessage offers IPv4 unicast and four-byte AS numbers (RFC 4760, RFC 6793), and no graceful restart: when the
// feeder goes, its routes go.
func openMessage(asn uint32, hold uint16, id netip.Addr) []byte {
	caps := []byte{
		2, 6, 1, 4, 0, 1, 0, 1,
		2, 6, 65, 4,
	}
	caps = binary.BigEndian.AppendUint32(caps, asn)
	short := uint16(23456) // AS_TRANS, when the number does not fit
	if asn < 1<<16 {
		short = uint16(asn)
	}
	body := binary.BigEndian.AppendUint16([]byte{4}, short)
	body = binary.BigEndian.AppendUint16(body, hold)
	body = append(body, id.AsSlice()...)
	body = append(body, byte(len(caps)))
	return message(msgOpen, append(body, caps...))
}

// updates encodes n prefixes, 20.0.0.0/24 and those that follow, as whole messages one after the other, each with one
// of the next hops in turn, and End-of-RIB (RFC 4724 section 2) after them.
func updates(n int, asn uint32, hops []netip.Addr) []byte {
	var out bytes.Buffer
	for first := 0; first < n; first += nlriPerUpdate {
		attrs := []byte{
			0x40, 1, 1, 0, // ORIGIN IGP
			0x40, 2, 6, 2, 1, // AS_PATH: one sequence of one
		}
		attrs = binary.BigEndian.AppendUint32(attrs, asn)
		attrs = append(attrs, 0x40, 3, 4) // NEXT_HOP
		attrs = append(attrs, hops[first/nlriPerUpdate%len(hops)].AsSlice()...)
		body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
		body = append(body, attrs...)
		for i := first; i < min(first+nlriPerUpdate, n); i++ {
			body = append(body, 24, 20+byte(i>>16), byte(i>>8), byte(i))
		}
		out.Write(message(msgUpdate, body))
	}
	out.Write(message(msgUpdate, []byte{0, 0, 0, 0}))
	return out.Bytes()
}

// fed is what covers every prefix of updates.
const fed = "20.0.0.0/7"

// feeder is one established session.
type feeder struct {
	conn net.Conn
	mu   sync.Mutex // one writer at a time
	stop chan struct{}
	once sync.Once
}

// feed connects from h to the daemon at addr, again and again until it accepts a session or ctx ends.
func feed(ctx context.Context, h *host, asn uint32, addr netip.Addr) (*feeder, error) {
	var last error
	for ctx.Err() == nil {
		conn, err := h.dial(netip.AddrPortFrom(addr, 179))
		if err == nil {
			if err = shake(conn, asn); err == nil {
				f := &feeder{conn: conn, stop: make(chan struct{})}
				go f.keep()
				go func() { _, _ = io.Copy(io.Discard, conn); f.close() }() // what it says does not matter
				return f, nil
			}
			_ = conn.Close()
		}
		last = err
		sleep(ctx, 10*time.Millisecond)
	}
	return nil, fmt.Errorf("session with %s: %w", addr, errors.Join(ctx.Err(), last))
}

// shake exchanges OPEN and KEEPALIVE.
func shake(conn net.Conn, asn uint32) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	id := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if _, err := conn.Write(openMessage(asn, feederHold, id)); err != nil {
		return err
	}
	for {
		typ, body, err := readMessage(conn)
		switch {
		case err != nil:
			return err
		case typ == msgOpen:
			if _, err := conn.Write(message(msgKeepalive, nil)); err != nil {
				return err
			}
		case typ == msgNotification:
			return fmt.Errorf("it answers with NOTIFICATION % x", body)
		case typ == msgKeepalive:
			return conn.SetDeadline(time.Time{})
		}
	}
}

func readMessage(r io.Reader) (typ byte, body []byte, err error) {
	var head [19]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint16(head[16:]))
	if size < len(head) {
		return 0, nil, fmt.Errorf("a message of %d bytes", size)
	}
	body = make([]byte, size-len(head))
	_, err = io.ReadFull(r, body)
	return head[18], body, err
}

// keep sends a KEEPALIVE a second: less than a third of any hold time that the daemons here ask for.
func (f *feeder) keep() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-t.C:
			if f.send(message(msgKeepalive, nil)) != nil {
				return
			}
		}
	}
}

// send writes whole messages.
func (f *feeder) send(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.conn.Write(b)
	return err
}

func (f *feeder) close() {
	f.once.Do(func() { close(f.stop); _ = f.conn.Close() })
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"syscall"
)

// receiver reads from a socket into a buffer that it takes from a pool only when there is something to read, so that
// thousands of idle connections cost no buffers.
type receiver struct {
	raw  syscall.RawConn
	pool *sync.Pool // of *[]byte
	try  func(fd uintptr) (done bool)

	buf *[]byte
	n   int
	err error
}

func newReceiver(raw syscall.RawConn, pool *sync.Pool) *receiver {
	r := &receiver{raw: raw, pool: pool}
	r.try = r.read // once: a method value allocates
	return r
}

// receive waits for something to read and reads it. The caller puts the buffer back unless there is an error. n is 0
// when a stream has ended or a datagram was empty.
func (r *receiver) receive() (buf *[]byte, n int, err error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	return r.buf, r.n, r.err
}

func (r *receiver) read(fd uintptr) (done bool) {
	r.buf = r.pool.Get().(*[]byte)
	for {
		r.n, r.err = syscall.Read(int(fd), *r.buf)
		if r.err != syscall.EINTR { //nolint:errorlint // a bare errno from the kernel
			break
		}
	}
	if r.err != nil {
		r.pool.Put(r.buf)
		r.buf, r.n = nil, 0
	}
	return r.err != syscall.EAGAIN //nolint:errorlint // a bare errno from the kernel
}

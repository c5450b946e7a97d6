// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// announceWait is how long Remove waits for the announcement before it makes the call itself.
const announceWait = 2 * time.Second

// Remove deletes a link and returns when the kernel has announced that it is gone, on both sides for a veth.
//
// The deleting system call itself returns some fifteen milliseconds later: after everything is undone and announced, the
// kernel waits for all processors to have passed a quiet point (rcu_barrier in netdev_run_todo) before it frees the memory.
// Nobody needs to wait for that, so write may be a function that has another process make the call, which outlives this
// one by those milliseconds (pkg/edge/orphan). Without one, or when it fails, Remove makes the call itself.
// The calling thread must be in this Conn's namespace.
func (c *Conn) Remove(index int, write func(fd int, b []byte) error) error {
	if write == nil {
		return c.Delete(index)
	}
	ear, err := listen(index)
	if err != nil {
		return c.Delete(index)
	}
	defer unix.Close(ear) //nolint:errcheck // only listened
	c.seq++
	m := newMessage(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0)).finish(unix.NLM_F_ACK, c.seq)
	// Connected, so that m can be written without an address; connecting to the kernel needs no privilege.
	err = unix.Connect(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = write(c.fd, m)
	}
	if err != nil {
		return c.Delete(index)
	}
	for deadline := time.Now().Add(announceWait); time.Now().Before(deadline); {
		gone, err := c.awaitRemoval(ear, time.Until(deadline))
		if err != nil {
			return fmt.Errorf("delete interface %d: %w", index, err)
		}
		if gone {
			return nil
		}
	}
	// The announcement was lost, as happens when the kernel is short of memory, or the other process was killed before it
	// made the call. Making it once more is right in both cases.
	return c.Delete(index)
}

// awaitRemoval reports that the announcement has come, or the kernel's answer to the writer. Nothing in time is no error.
func (c *Conn) awaitRemoval(ear int, wait time.Duration) (gone bool, err error) {
	fds := []unix.PollFd{{Fd: int32(ear), Events: unix.POLLIN}, {Fd: int32(c.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(wait.Milliseconds())); err != nil && err != unix.EINTR { //nolint:errorlint // a bare number
		return false, err
	}
	if fds[0].Revents != 0 {
		n, _, err := unix.Recvfrom(ear, make([]byte, unix.SizeofNlMsghdr), unix.MSG_DONTWAIT)
		return err == nil && n > 0, nil // an overrun shows as an error here
	}
	if fds[1].Revents == 0 {
		return false, nil
	}
	if c.buf == nil {
		c.buf = make([]byte, receiveSize)
	}
	n, err := c.receive(c.buf)
	if err != nil {
		return false, err
	}
	if n < unix.SizeofNlMsghdr || binary.NativeEndian.Uint16(c.buf[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(c.buf[8:]) != c.seq {
		return false, nil
	}
	err = ackError(binary.NativeEndian.Uint16(c.buf[6:]), c.buf[unix.SizeofNlMsghdr:n])
	if errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return err == nil, err
}

// listen opens a socket on which nothing arrives but the RTM_DELLINK of one link: a filter in the kernel drops the rest,
// so that sixty removals at once cannot overrun it.
func listen(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	swap := func(v uint32, bytes int) uint32 { // the filter loads big-endian
		b := binary.NativeEndian.AppendUint32(nil, v)
		if bytes == 2 {
			b = binary.NativeEndian.AppendUint16(nil, uint16(v))
			return uint32(binary.BigEndian.Uint16(b))
		}
		return binary.BigEndian.Uint32(b)
	}
	const ifiIndex = unix.SizeofNlMsghdr + 4
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 5, K: swap(unix.RTM_DELLINK, 2)},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: unix.SizeofNlMsghdr}, // AF_BRIDGE says only: no longer a port
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 3, K: unix.AF_UNSPEC},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: ifiIndex},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: swap(uint32(index), 4)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

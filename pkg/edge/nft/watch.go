// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// Watch hears when rules change: another tool that flushes the ruleset, or a hand that helps.
type Watch struct {
	f        *os.File // non-blocking: Run sleeps in the runtime's poller
	concerns func(message) bool
}

// Watch listens from now on for what others do to the plane's tables, in the namespace of the calling thread, which must be
// the plane's. Run it, or Close it.
func (d *DataPlane) Watch() (*Watch, error) {
	return watch(ours, func(fd int) error { return deaf(fd, d.c.fd) })
}

// WatchIPTables listens likewise for what anybody, this process included, does to the iptables chains of portals and to the
// rules that lead to them. It hears programs that are built on nftables, as iptables has been since 1.8; not the legacy ones.
func WatchIPTables() (*Watch, error) { return watch(portalChains, func(int) error { return nil }) }

func watch(concerns func(message) bool, prepare func(fd int) error) (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = prepare(fd)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupNFTables)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), unix.Close(fd))
	}
	return &Watch{os.NewFile(uintptr(fd), "nftables"), concerns}, nil //nolint:gosec // a descriptor
}

// groupNFTables is NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, msgNewGen what ends the news of one transaction.
const (
	groupNFTables = 7
	msgNewGen     = 15
)

// deaf makes fd deaf to what speaker does: news carry the port id of who asked for the change. The kernel drops them before
// they fill our buffer, which one load of many services would overrun.
func deaf(fd, speaker int) error {
	sa, err := unix.Getsockname(speaker)
	if err != nil {
		return err
	}
	nl, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		return errors.New("no netlink socket")
	}
	pid := binary.BigEndian.Uint32(native(nl.Pid)) // the filter reads words as if they came from the network
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // nlmsg_pid
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: pid, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}) //nolint:gosec // four
}

// Close ends the watch; for who does not Run it.
func (w *Watch) Close() error { return w.f.Close() }

// rest is how long Run listens no more after it has told of a change: one flush makes many news, and a tool that fights for
// the tables must not take the whole processor.
const rest = 300 * time.Millisecond

// Run calls changed each time that there is something to hear, until ctx ends; then it returns nil. What happens
// during one call and shortly after it makes one more.
func (w *Watch) Run(ctx context.Context, changed func()) error {
	defer context.AfterFunc(ctx, func() { _ = w.f.Close() })()
	defer w.f.Close() //nolint:errcheck // may be closed already
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // news are lost: nobody knows whose
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		case !w.heard(buf[:n]):
			continue
		}
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
	}
}

// heard reports that one of the messages concerns the watch.
func (w *Watch) heard(b []byte) bool { return slices.ContainsFunc(split(b), w.concerns) }

// ours reports a message about our tables. The first attribute of every object names its table.
func ours(m message) bool {
	return m.typ&0xff != msgNewGen && len(m.body) >= 4 && attrString(m.body[4:], attrTableName) == mark.TableServices
}

// portalChains reports a message about a chain of portals, or about a rule that goes from where one leads to it.
func portalChains(m message) bool {
	if len(m.body) < 4 || attrString(m.body[4:], attrTableName) != "nat" {
		return false
	}
	switch m.typ & 0xff {
	case msgDelTable:
		return true
	case msgDelRule, msgNewRule:
		chain := attrString(m.body[4:], attrRuleChain)
		return strings.HasPrefix(chain, "KUBE-PORTALS-") || strings.HasPrefix(chain, "KUBE-NODEPORT-") ||
			m.typ&0xff == msgDelRule && (chain == "PREROUTING" || chain == "OUTPUT")
	}
	return false
}

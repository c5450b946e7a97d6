// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// recordDir holds a file for each attachment with hostPorts. It is written before the kernel is asked, so that a DEL
// finds what an ADD that was killed half way may have left, without a look at anybody else's ports.
var recordDir = mark.HostPortDir

func recordPath(network string, a cni.Attachment) string {
	return filepath.Join(recordDir, network, a.ContainerID+":"+a.IfName)
}

// holder names an attachment in the kernel and to people. A name that is too long is cut and told apart by a hash.
func holder(network string, a cni.Attachment) string {
	s := network + "/" + a.ContainerID + "/" + a.IfName
	if len(s) <= nft.MaxHolder {
		return s
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return fmt.Sprintf("%s~%016x", s[:nft.MaxHolder-17], h.Sum64())
}

// readRecord returns nil without an error when there is none. Records are read and written by plain system calls: os
// would start the runtime's poller, for a file of some thirty bytes.
func readRecord(path string) ([]nft.Mapping, error) {
	data, err := readFile(path)
	if neverThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host port record: %w", err)
	}
	ms, err := parseRecord(string(data))
	if err != nil {
		return nil, fmt.Errorf("read host port record %s: %w", path, err)
	}
	return ms, nil
}

func readFile(path string) (out []byte, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var buf [4096]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err != nil || n == 0 {
			return out, err
		}
		out = append(out, buf[:n]...)
	}
}

// saved are all records, the oldest first: what was in the kernel's tables. One that is damaged stands in nobody's way.
func saved() (out []nft.Held) {
	type file struct {
		path, holder string
		at           int64
	}
	var files []file
	networks, _ := os.ReadDir(recordDir)
	for _, n := range networks {
		list, _ := os.ReadDir(filepath.Join(recordDir, n.Name()))
		for _, e := range list {
			id, ifName, ok := strings.Cut(e.Name(), ":")
			if info, err := e.Info(); ok && err == nil && !strings.HasPrefix(id, ".") {
				files = append(files, file{filepath.Join(recordDir, n.Name(), e.Name()),
					holder(n.Name(), cni.Attachment{ContainerID: id, IfName: ifName}), info.ModTime().UnixNano()})
			}
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.path, b.path)) })
	for _, f := range files {
		ms, _ := readRecord(f.path)
		for _, m := range ms {
			out = append(out, nft.Held{Mapping: m, Holder: f.holder})
		}
	}
	return out
}

// formatRecord writes a line for each port: "17 0.0.0.0:5353 10.10.10.2:53", the protocol as its number.
func formatRecord(ms []nft.Mapping) (out []byte) {
	for _, m := range ms {
		out = strconv.AppendUint(out, uint64(m.Protocol), 10)
		out = netip.AddrPortFrom(m.HostIP, m.HostPort).AppendTo(append(out, ' '))
		out = append(m.To.AppendTo(append(out, ' ')), '\n')
	}
	return out
}

// parseRecord reads what formatRecord wrote.
func parseRecord(text string) ([]nft.Mapping, error) {
	ms := []nft.Mapping{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("line %q: not three words", line)
		}
		proto, err := strconv.ParseUint(f[0], 10, 8)
		on, oerr := netip.ParseAddrPort(f[1])
		to, terr := netip.ParseAddrPort(f[2])
		if err := errors.Join(err, oerr, terr); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		ms = append(ms, nft.Mapping{HostIP: on.Addr(), Protocol: service.Protocol(proto), HostPort: on.Port(), To: to})
	}
	return ms, nil
}

// writeRecord makes the whole record appear at once; one of an earlier ADD of the same attachment is replaced.
func writeRecord(path string, ms []nft.Mapping) error {
	dir := filepath.Dir(path)
	tmp := unfinished(path)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_CLOEXEC
	fd, err := unix.Open(tmp, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			fd, err = unix.Open(tmp, flags, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("write host port record: %w", err)
	}
	text := formatRecord(ms)
	n, err := unix.Write(fd, text)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err = errors.Join(err, unix.Close(fd)); err == nil {
		err = unix.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write host port record: %w", err), unix.Unlink(tmp))
	}
	return nil
}

// unfinished is where a record is written, and what an ADD leaves that is killed there.
func unfinished(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
}

func removeRecord(path string) error {
	for _, p := range []string{path, unfinished(path)} {
		if err := unix.Unlink(p); err != nil && !neverThere(err) {
			return fmt.Errorf("remove host port record: %w", err)
		}
	}
	return nil
}

// neverThere says that there is no such file, or that there cannot be, as the container id is too long: ADD refused it then.
func neverThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG)
}

// The time of recordDir is that of the last removal: whoever closes a socket of nftables soon after waits for the kernel.

// noteRemoval keeps the time of a removal. It does not matter much when it fails.
func noteRemoval() {
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, recordDir, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0)
}

// recentRemoval reports one within the time that an orphan lingers.
func recentRemoval() bool {
	var st unix.Stat_t
	return unix.Stat(recordDir, &st) == nil && time.Since(time.Unix(st.Mtim.Unix())) < linger
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// recordDir holds a file for each attachment with hostPorts. It is written before the kernel is asked, so that a DEL
// finds what an ADD that was killed half way may have left, without a look at anybody else's ports.
var recordDir = mark.RunDir + "/hostports"

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

// readRecord returns nil without an error when there is none.
func readRecord(path string) ([]nft.Mapping, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
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

func writeRecord(path string, ms []nft.Mapping) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write host port record: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d", os.Getpid()))
	if err := os.WriteFile(tmp, formatRecord(ms), 0o600); err != nil {
		return fmt.Errorf("write host port record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write host port record: %w", err), os.Remove(tmp))
	}
	return nil
}

func removeRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove host port record: %w", err)
	}
	return nil
}

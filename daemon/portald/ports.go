// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// portsFile keeps the proxy ports of userspace mode over a restart, as {"TCP 10.100.87.105:80": 39770}.
type portsFile struct {
	path  string
	saved map[portal.Key]uint16
}

// load returns the remembered ports; none when the file is missing. An unreadable file is an error, and no reason not
// to start: portals get new ports then.
func (f *portsFile) load() (map[portal.Key]uint16, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read proxy ports: %w", err)
	}
	var raw map[string]uint16
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("read proxy ports: %s: %w", f.path, err)
	}
	ports := make(map[portal.Key]uint16, len(raw))
	for text, port := range raw {
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("read proxy ports: %s: %w", f.path, err)
		}
		ports[key] = port
	}
	return ports, nil
}

// save replaces the file in one step if the ports have changed.
func (f *portsFile) save(ports map[portal.Key]uint16) error {
	if f.saved != nil && maps.Equal(ports, f.saved) {
		return nil
	}
	raw := make(map[string]uint16, len(ports))
	for key, port := range ports {
		raw[key.String()] = port
	}
	data, err := json.MarshalIndent(raw, "", "  ")
	if err != nil {
		return fmt.Errorf("save proxy ports: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("save proxy ports: %w", err)
	}
	tmp := f.path + ".new" // one writer: the control socket sees to that
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save proxy ports: %w", err)
	}
	if err := os.Rename(tmp, f.path); err != nil {
		return fmt.Errorf("save proxy ports: %w", err)
	}
	f.saved = maps.Clone(ports)
	return nil
}

// parseKey undoes portal.Key.String.
func parseKey(text string) (portal.Key, error) {
	name, addr, _ := strings.Cut(text, " ")
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return portal.Key{}, fmt.Errorf("%q is not a portal", text)
	}
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if p.String() == name {
			return portal.Key{Addr: ap.Addr(), Protocol: p, Port: ap.Port()}, nil
		}
	}
	return portal.Key{}, fmt.Errorf("%q is not a portal", text)
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// ctl runs l3ctl there and returns what it prints and its exit status.
func ctl(t *testing.T, p *place.Place, args ...string) (string, int) {
	t.Helper()
	out, err := p.Run("l3ctl", args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out + err.Error(), exit.ExitCode()
	}
	must(t, err)
	return out, 0
}

// wants runs l3ctl there and requires an exit status and everything that shall be in its output.
func wants(t *testing.T, p *place.Place, status int, command string, wanted ...string) string {
	t.Helper()
	out, got := ctl(t, p, strings.Fields(command)...)
	if got != status {
		t.Errorf("l3ctl %s: status %d, want %d\n%s", command, got, status, out)
	}
	for _, w := range wanted {
		if !strings.Contains(out, w) {
			t.Errorf("l3ctl %s: %q is not in\n%s", command, w, out)
		}
	}
	return out
}

// onNode writes a file on a host, with its directories.
func onNode(t *testing.T, h *lab.Host, path, text string) {
	t.Helper()
	at := fmt.Sprintf("/proc/%d/root%s", h.Pid, path)
	must(t, os.MkdirAll(at[:strings.LastIndex(at, "/")], 0o755))
	must(t, os.WriteFile(at, []byte(text), 0o644))
}

// What l3ctl says of a node is so: one lab for all of it.
func TestL3ctlOnANode(t *testing.T) {
	l := labtest.Up(t, lab.Embedded)
	must(t, l.StartEverything())
	t.Run("ipam", func(t *testing.T) { testIPAM(t, l) })
}

// The leases are shown, taken over from host-local, compared with what lives, and given back.
func testIPAM(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion1"]
	wants(t, h.Place, 0, "ipam show", "10.10.10.0/24: 1 of 253 addresses in use", "10.10.10.2  default/web8080-1")
	wants(t, h.Place, 0, "ipam check", "every lease has its pod")
	for name, text := range map[string]string{
		"10.10.10.2": "somebody\r\neth0", "10.10.10.77": "old\r\neth0", "10.10.10.78": "web8080-1\r\neth0", "last_reserved_ip.0": "10.10.10.78", "lock": "",
	} {
		onNode(t, h, "/var/lib/cni/networks/l3edge/"+name, text)
	}
	wants(t, h.Place, 2, "ipam import-host-local --dry-run", "10.10.10.77  container old", "would be taken over")
	conflict := "CONFLICT: 10.10.10.2 is leased to pod default/web8080-1 (container web8080-1)"
	wants(t, h.Place, 2, "ipam import-host-local", conflict, "10.10.10.78  default/web8080-1", "the runtime knows no such container")
	wants(t, h.Place, 2, "ipam import-host-local", conflict, "10.10.10.77  container old       is ours already")
	wants(t, h.Place, 2, "ipam check", "10.10.10.77 (no pod known, container old): its container has no interface")
	wants(t, h.Place, 1, "ipam release 10.10.10.78", "default/web8080-1 still uses it")
	wants(t, h.Place, 0, "ipam release 10.10.10.77", "10.10.10.77 of old is free")
	wants(t, h.Place, 0, "ipam release --force 10.10.10.78", "is free")
	wants(t, h.Place, 1, "ipam release 10.10.10.77", "no network of this node has leased it")
	wants(t, h.Place, 0, "ipam check")
	must(t, os.RemoveAll(fmt.Sprintf("/proc/%d/root/var/lib/cni/networks/l3edge", h.Pid)))
}

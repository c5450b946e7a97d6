// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// ErrMissing means that the iptables programs are not installed.
var ErrMissing = errors.New("not found in PATH: install iptables (Debian: apt-get install iptables) or use --mode=nftables")

// lockWait is how many seconds iptables waits for its lock, /run/xtables.lock, before it gives up.
const lockWait = 5

// Family programs the nat table of one address family.
type Family struct {
	ipt     *iptables.IPTables
	restore string // path of iptables-restore or ip6tables-restore
}

// Open finds the programs for the family of addr. The error is ErrMissing (errors.Is) when they are not installed.
func Open(addr netip.Addr) (*Family, error) {
	proto, name := iptables.ProtocolIPv4, "iptables"
	if addr.Is6() {
		proto, name = iptables.ProtocolIPv6, "ip6tables"
	}
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Timeout(lockWait))
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", name, ErrMissing)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	restore, err := exec.LookPath(name + "-restore")
	if err != nil {
		return nil, fmt.Errorf("%s-restore: %w", name, ErrMissing)
	}
	return &Family{ipt: ipt, restore: restore}, nil
}

// Apply makes our chains hold exactly want, and PREROUTING and OUTPUT jump to them, to those of NodePorts last. All
// changes are one commit: no packet sees half of them. It reads what is there and does nothing when that is right. It
// returns what it changed, in the language of iptables-restore; empty: nothing.
func (f *Family) Apply(ctx context.Context, want Rules) (string, error) {
	have, err := f.read()
	if err != nil {
		return "", err
	}
	input := plan(want, have)
	if input == "" {
		return "", nil
	}
	cmd := exec.CommandContext(ctx, f.restore, "--noflush", fmt.Sprintf("--wait=%d", lockWait))
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apply rules: %s: %w: %s", f.restore, err, strings.TrimSpace(string(out)))
	}
	return input, nil
}

// Plan returns what Apply would change, and changes nothing.
func (f *Family) Plan(want Rules) (string, error) {
	have, err := f.read()
	if err != nil {
		return "", err
	}
	return plan(want, have), nil
}

// Cleanup removes the jumps and our chains with all their rules. It is no error when there are none.
func (f *Family) Cleanup() error {
	chains, err := f.ipt.ListChains("nat")
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, j := range jumps {
		if !slices.Contains(chains, j.to) {
			continue
		}
		for exists := true; exists; {
			if err := f.ipt.DeleteIfExists("nat", j.from, j.rule()...); err != nil {
				return fmt.Errorf("remove jump from %s to %s: %w", j.from, j.to, err)
			}
			if exists, err = f.ipt.Exists("nat", j.from, j.rule()...); err != nil {
				return fmt.Errorf("remove jump from %s to %s: %w", j.from, j.to, err)
			}
		}
		if err := f.ipt.ClearAndDeleteChain("nat", j.to); err != nil {
			return fmt.Errorf("remove chain %s: %w", j.to, err)
		}
	}
	return nil
}

// read lists our chains and the jumps to them.
func (f *Family) read() (state, error) {
	have := state{chains: Rules{}, jumps: map[string]int{}}
	chains, err := f.ipt.ListChains("nat")
	if err != nil {
		return state{}, fmt.Errorf("list chains: %w", err)
	}
	builtIn := map[string][]Rule{}
	for _, j := range jumps {
		if _, ok := builtIn[j.from]; !ok {
			if builtIn[j.from], err = f.list(j.from); err != nil {
				return state{}, err
			}
		}
		if !slices.Contains(chains, j.to) {
			continue
		}
		if have.chains[j.to], err = f.list(j.to); err != nil {
			return state{}, err
		}
		for _, r := range builtIn[j.from] {
			if slices.Equal(r, j.rule()) {
				have.jumps[j.to]++
			}
		}
	}
	return have, nil
}

// list returns the rules of a chain, without the line that declares it.
func (f *Family) list(chain string) ([]Rule, error) {
	lines, err := f.ipt.List("nat", chain)
	if err != nil {
		return nil, fmt.Errorf("list chain %s: %w", chain, err)
	}
	var rules []Rule
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			rules = append(rules, split(rest))
		}
	}
	return rules, nil
}

// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/ipam"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/lease"
)

// takeover is what import-host-local is asked for.
type takeover struct {
	dir, network, from string
	dry                bool
}

func newIPAMImport() *cobra.Command {
	t := takeover{dir: mark.HostLocalDir}
	cmd := &cobra.Command{
		Use: "import-host-local", Short: "Take over the addresses that a running node's pods hold from host-local", Args: cobra.NoArgs,
		Long: `Take over the addresses that a running node's pods hold from host-local, so that bridge-l3 gives none of them twice.
With --network also before any configuration list of ours is there. Nothing of host-local's is changed, and doing it again
changes nothing. What cannot be taken over is named and left alone: status 2 then.`,
		Example: `  l3ctl ipam import-host-local --network=mynet --dry-run
  l3ctl ipam import-host-local --network=l3edge --from=mynet   # the new list has another name
  l3ctl ipam import-host-local                                 # once more, when the new list is there`,
	}
	cmd.Flags().StringVar(&t.dir, "dir", t.dir, "where host-local keeps its `directory` of each network")
	cmd.Flags().StringVar(&t.network, "network", "", "only the network of this `name`, which need not be configured yet; default: every one of ours")
	cmd.Flags().StringVar(&t.from, "from", "", "what host-local calls that network; default: the same `name`")
	cmd.Flags().BoolVar(&t.dry, "dry-run", false, "say what would be done")
	format := look.Output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		h := look.Host(cmd.Context())
		networks, err := t.networks(h)
		if err != nil {
			return err
		}
		fates, notes := []ipam.Fate{}, []string{}
		for _, n := range networks {
			some, note, err := t.run(h, n)
			if err != nil {
				return err
			}
			fates, notes = append(fates, some...), append(notes, note...)
		}
		err = format.Print(cmd, fates, func(w io.Writer) { printFates(w, fates, notes, t.dry) })
		if err != nil || !slices.ContainsFunc(fates, ipam.Fate.Fails) {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

// networkName is what the CNI specification lets a network be called.
var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// networks are those whose addresses are taken over.
func (t takeover) networks(h view.Host) ([]view.Network, error) {
	for _, f := range []struct{ flag, name string }{{"network", t.network}, {"from", t.from}} {
		if f.name != "" && !networkName.MatchString(f.name) {
			return nil, fmt.Errorf("--%s: %q is not the name of a network", f.flag, f.name)
		}
	}
	if t.network != "" {
		n, ok := find(h.Networks, t.network)
		if !ok {
			n = view.Network{Name: t.network}
		}
		return []view.Network{n}, nil
	}
	if t.from != "" {
		return nil, errors.New("--from: needs --network, the name of the network whose leases they become")
	}
	ours := slices.DeleteFunc(slices.Clone(h.Networks), func(n view.Network) bool { return !n.Leases() })
	if len(ours) == 0 {
		return nil, errors.New("no configuration list names bridge-l3 yet: say --network, the name that yours will have; " + t.offers())
	}
	return ours, nil
}

// offers names the networks that host-local holds addresses of.
func (t takeover) offers() string {
	entries, err := os.ReadDir(t.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	var names []string
	for _, e := range entries {
		if all, err := lease.At(filepath.Join(t.dir, e.Name())).Foreign(); err == nil && len(all) > 0 {
			names = append(names, fmt.Sprintf("%s (%d)", e.Name(), len(all)))
		}
	}
	if len(names) == 0 {
		return "host-local holds no address in " + t.dir
	}
	return "host-local holds addresses of " + strings.Join(names, ", ")
}

// run takes over the addresses of one network. What does not work with one of them does not keep it from the others.
func (t takeover) run(h view.Host, n view.Network) (fates []ipam.Fate, notes []string, err error) {
	from := cmp.Or(t.from, n.Name)
	dir := filepath.Join(t.dir, from)
	if same(dir, look.StoreDir(n)) {
		return nil, []string{fmt.Sprintf("network %s: our leases lie in %s, host-local's own directory: bridge-l3 gives no address that a file there holds", n.Name, dir)}, nil
	}
	all, err := lease.At(dir).Foreign()
	if err != nil {
		return nil, nil, err
	}
	var records []ipam.Foreign
	for _, f := range all {
		r := ipam.Foreign{Addr: f.Addr, Container: f.ContainerID, IfName: f.IfName, Problem: f.Problem}
		if r.Container != "" {
			r.IfName = cmp.Or(r.IfName, "eth0")
		}
		records = append(records, r)
	}
	if h.Leases, err = look.Leases(n, dir); err != nil {
		return nil, nil, err
	}
	for _, f := range ipam.Plan(h, n.Name, from, records) {
		if !f.Fails() && !f.Held && !t.dry {
			if err := claim(n, f); errors.Is(err, lease.ErrTaken) {
				f.Conflict = err.Error()
			} else if err != nil {
				f.Problem = err.Error()
			}
		}
		fates = append(fates, f)
	}
	if len(fates) == 0 {
		notes = append(notes, fmt.Sprintf("network %s: host-local holds no address in %s", n.Name, dir))
	}
	return fates, notes, nil
}

// same reports that both are one directory.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func printFates(w io.Writer, fates []ipam.Fate, notes []string, dry bool) {
	done := "taken over"
	if dry {
		done = "would be taken over"
	}
	for _, f := range fates {
		what := done
		switch {
		case f.Problem != "":
			what = "NOT TAKEN OVER: " + f.Problem
		case f.Conflict != "":
			what = "CONFLICT: " + f.Conflict
		case f.Held:
			what = "is ours already"
		case f.Dead:
			what += "; the runtime knows no such container now: its GC releases the address, or l3ctl ipam release"
		}
		whose := cmp.Or(f.Pod, "container "+f.Container)
		if f.Container == "" {
			whose = "-"
		}
		look.Say(w, "%s\t%s\t%s", f.Addr, whose, what)
	}
	for _, n := range notes {
		look.Say(w, "%s", n)
	}
}

// claim makes f a lease of ours.
func claim(n view.Network, f ipam.Fate) error {
	store, owner := look.Store(n), lease.Owner{ContainerID: f.Container, IfName: f.IfName}
	l, err := store.Find(owner) // of its other family, perhaps; what that knows of its port stays
	if errors.Is(err, fs.ErrNotExist) {
		l, err = store.Begin(lease.Record{Owner: owner, Pod: f.Pod})
	}
	if err != nil {
		return err
	}
	defer l.Close()
	err = l.Take(f.Addr)
	if held, herr := l.Holds(nil); err != nil && herr == nil && len(held) == 0 {
		return errors.Join(err, l.Release(nil))
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/ipam"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/lease"
)

func newIPAM() *cobra.Command {
	cmd := &cobra.Command{Use: "ipam", Short: "See and mend which pod holds which address of this node"}
	cmd.AddCommand(newIPAMShow(), newIPAMCheck(), newIPAMRelease(), newIPAMImport())
	return cmd
}

func newIPAMShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "List the addresses that pods hold, and how full each subnet is", Args: cobra.NoArgs,
		Example: "  l3ctl ipam show",
	}
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		type answer struct {
			Host   string       `json:"host"`
			Usage  []ipam.Usage `json:"usage"`
			Leases []view.Lease `json:"leases"`
		}
		var all []answer
		for _, h := range hs {
			if len(h.Networks) > 0 || len(hs) == 1 {
				all = append(all, answer{h.Name, ipam.Count(h), h.Leases})
			}
		}
		return format.Print(cmd, all, func(w io.Writer) {
			for _, a := range all {
				for _, u := range a.Usage {
					look.Say(w, "%s, network %s, %s", a.Host, u.Network, u)
				}
				look.Say(w, "ADDRESS\tPOD\tCONTAINER\tINTERFACE\tSINCE")
				for _, l := range a.Leases {
					look.Say(w, "%s\t%s\t%.13s\t%s\t%s", l.Addr, cmp.Or(l.Pod, "-"), cmp.Or(l.Container, "?"), l.IfName, l.Since.Format(time.DateTime))
				}
			}
		})
	}
	return cmd
}

func newIPAMCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Compare leases with the pods that are there; status 2 when they differ", Args: cobra.NoArgs,
		Example: "  l3ctl ipam check || l3ctl doctor --repair",
	}
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		found := []ipam.Stray{}
		for _, h := range hs {
			found = append(found, ipam.Strays(h, attach.PortName)...)
		}
		if err := format.Print(cmd, found, func(w io.Writer) {
			for _, s := range found {
				look.Say(w, "%s (%s, container %s): %s", s.Addr, cmp.Or(s.Pod, "no pod known"), cmp.Or(s.Container, "?"), s.Why)
			}
			if len(found) == 0 {
				look.Say(w, "every lease has its pod, and every pod its lease")
			}
		}); err != nil || len(found) == 0 {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

func newIPAMRelease() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "release ADDRESS...", Short: "Give back addresses that no pod uses", Args: cobra.MinimumNArgs(1),
		Example: "  l3ctl ipam release 10.10.10.7",
		RunE: func(cmd *cobra.Command, args []string) error {
			h := look.Host(cmd.Context())
			var errs []error
			for _, a := range args {
				errs = append(errs, release(cmd.OutOrStdout(), h, a, force))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while a pod uses the address: it will be given to the next pod as well")
	return cmd
}

// release gives back the lease of one address.
func release(w io.Writer, h view.Host, text string, force bool) error {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("%q is not an address", text)
	}
	i := slices.IndexFunc(h.Leases, func(l view.Lease) bool { return l.Addr == a })
	if i < 0 {
		return fmt.Errorf("%s: no network of this node has leased it", a)
	}
	l := h.Leases[i]
	gone, err := drop(h, l, force)
	if err == nil && gone {
		_, err = fmt.Fprintf(w, "%s of %s is free\n", a, cmp.Or(l.Pod, l.Container))
	}
	return err
}

// drop releases one address. Its attachment is locked meanwhile, so that an ADD under way is waited for and seen; the
// attachment itself goes with its last address.
func drop(h view.Host, l view.Lease, force bool) (bool, error) {
	network, ok := find(h.Networks, l.Network)
	if !ok || l.Container == "" {
		return false, fmt.Errorf("%s: is not one of our leases", l.Addr)
	}
	held, err := look.Store(network).Find(lease.Owner{ContainerID: l.Container, IfName: l.IfName})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // released meanwhile
	} else if err != nil {
		return false, err
	}
	defer held.Close()
	if !force {
		if used, err := look.Used(l.Container, l.IfName); err != nil {
			return false, err
		} else if used {
			return false, fmt.Errorf("%s: %s still uses it: delete the pod, or say --force", l.Addr, cmp.Or(l.Pod, "container "+l.Container))
		}
	}
	others, err := held.Holds(nil)
	if err != nil {
		return false, err
	}
	if len(others) > 1 {
		return true, held.Drop(l.Addr)
	}
	return true, held.Release(others)
}

func find(ns []view.Network, name string) (view.Network, bool) {
	i := slices.IndexFunc(ns, func(n view.Network) bool { return n.Name == name })
	if i < 0 {
		return view.Network{}, false
	}
	return ns[i], true
}

func newIPAMImport() *cobra.Command {
	dir, network, dry := "/var/lib/cni/networks", "", false
	cmd := &cobra.Command{
		Use: "import-host-local", Short: "Take over the addresses that a running node's pods hold from host-local", Args: cobra.NoArgs,
		Long: `Take over the addresses that a running node's pods hold from host-local, so that bridge-l3 gives none of them twice.
Nothing of host-local's is changed, and doing it again changes nothing. Status 2 when an address is leased to another already.`,
		Example: "  l3ctl ipam import-host-local --dry-run\n  l3ctl ipam import-host-local",
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "where host-local keeps its `directory` of each network")
	cmd.Flags().StringVar(&network, "network", "", "only the network of this `name`; default: every one of ours")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done")
	format := look.Output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		h := look.Host(cmd.Context())
		if _, ok := find(h.Networks, network); network != "" && !ok {
			return fmt.Errorf("--network: no configuration list names %q together with one of our plugins", network)
		}
		fates := []ipam.Fate{}
		conflict := false
		for _, n := range h.Networks {
			if network != "" && n.Name != network {
				continue
			}
			records, err := foreign(filepath.Join(dir, n.Name))
			if err != nil {
				return err
			}
			for _, f := range ipam.Plan(h, n.Name, records) {
				if f.Conflict == "" && !f.Held && !dry {
					if err := claim(n, f); errors.Is(err, lease.ErrTaken) {
						f.Conflict = err.Error()
					} else if err != nil {
						return err
					}
				}
				conflict = conflict || f.Conflict != ""
				fates = append(fates, f)
			}
		}
		if err := format.Print(cmd, fates, func(w io.Writer) { printFates(w, fates, dry) }); err != nil || !conflict {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

func printFates(w io.Writer, fates []ipam.Fate, dry bool) {
	done := "taken over"
	if dry {
		done = "would be taken over"
	}
	for _, f := range fates {
		what := done
		switch {
		case f.Conflict != "":
			what = "CONFLICT: " + f.Conflict
		case f.Held:
			what = "is ours already"
		case f.Dead:
			what += "; the runtime knows no such container now: its GC releases the address, or l3ctl ipam release"
		}
		look.Say(w, "%s\t%s\t%s", f.Addr, cmp.Or(f.Pod, "container "+f.Container), what)
	}
	if len(fates) == 0 {
		look.Say(w, "host-local holds no address of our networks")
	}
}

// foreign reads a directory of host-local; one that is not there is empty.
func foreign(dir string) ([]ipam.Foreign, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []ipam.Foreign
	var errs []error
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if e.IsDir() || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f, ok, perr := ipam.ParseForeign(e.Name(), string(text))
		if err := errors.Join(err, perr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
		} else if ok {
			out = append(out, f)
		}
	}
	return out, errors.Join(errs...)
}

// claim makes f a lease of ours.
func claim(n view.Network, f ipam.Fate) error {
	l, err := look.Store(n).Begin(lease.Record{Owner: lease.Owner{ContainerID: f.Container, IfName: f.IfName}, Pod: f.Pod})
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

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
	"github.com/l3edge/l3edge/pkg/core/mark"
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
					from := ""
					if l.HostLocal != "" {
						from = " (host-local)"
					}
					look.Say(w, "%s\t%s\t%.13s\t%s\t%s%s", l.Addr, cmp.Or(l.Pod, "-"), cmp.Or(l.Container, "?"), l.IfName, l.Since.Format(time.DateTime), from)
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
	cmd.ValidArgsFunction = look.Complete(1<<16, look.Leased)
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
		_, err = fmt.Fprintf(w, "%s of %s is free\n", a, cmp.Or(l.Pod, l.Container, "nobody"))
	}
	return err
}

// drop releases one address. Its attachment is locked meanwhile, so that an ADD under way is waited for and seen; the
// attachment itself goes with its last address, and with it what host-local holds of it.
func drop(h view.Host, l view.Lease, force bool) (bool, error) {
	network, ok := find(h.Networks, l.Network)
	if !ok || l.Container == "" && l.HostLocal == "" {
		return false, fmt.Errorf("%s: is not one of our leases", l.Addr)
	}
	owner := lease.Owner{ContainerID: l.Container, IfName: l.IfName}
	if l.HostLocal != "" {
		return dropHostLocal(l, owner, force)
	}
	held, err := look.Store(network).Find(owner)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // released meanwhile
	} else if err != nil {
		return false, err
	}
	defer held.Close()
	if err := unused(l, force); err != nil {
		return false, err
	}
	others, err := held.Holds(nil)
	if err != nil {
		return false, err
	}
	if len(others) > 1 {
		return true, held.Drop(l.Addr)
	}
	return true, errors.Join(held.Release(others), dropOrigin(owner))
}

// dropOrigin removes the files of host-local that a lease was imported from, under whatever name the network had.
func dropOrigin(o lease.Owner) error {
	names, err := lease.Networks(mark.HostLocalDir)
	errs := []error{err}
	for _, n := range names {
		store := lease.At(filepath.Join(mark.HostLocalDir, n))
		all, err := store.Foreign()
		errs = append(errs, err)
		if slices.ContainsFunc(all, func(f lease.Foreign) bool { return f.Of(o) }) {
			errs = append(errs, store.DropForeign(o))
		}
	}
	return errors.Join(errs...)
}

// dropHostLocal removes what host-local holds of an attachment, or by force the file that names none.
func dropHostLocal(l view.Lease, owner lease.Owner, force bool) (bool, error) {
	if l.Container == "" {
		if !force {
			return false, fmt.Errorf("%s: %s names no container: say --force when no pod has the address", l.Addr, l.HostLocal)
		}
		return true, os.Remove(l.HostLocal)
	}
	if err := unused(l, force); err != nil {
		return false, err
	}
	return true, lease.At(filepath.Dir(l.HostLocal)).DropForeign(owner)
}

// unused refuses while somebody uses the address.
func unused(l view.Lease, force bool) error {
	if force {
		return nil
	}
	used, err := look.Used(l.Container, l.IfName)
	if used {
		err = fmt.Errorf("%s: %s still uses it: delete the pod, or say --force", l.Addr, cmp.Or(l.Pod, "container "+l.Container))
	}
	return err
}

func find(ns []view.Network, name string) (view.Network, bool) {
	i := slices.IndexFunc(ns, func(n view.Network) bool { return n.Name == name })
	if i < 0 {
		return view.Network{}, false
	}
	return ns[i], true
}

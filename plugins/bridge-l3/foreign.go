// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// hostLocalDir is host-local's, which has files of the pods that a node had before it came to us.
var hostLocalDir = mark.HostLocalDir

// hostLocal is what host-local holds of a network. Its plugin is not called any more, so we end what it began.
func hostLocal(network string) *lease.Store { return lease.At(hostLocalDir + "/" + network) }

// foreign gives back what host-local holds for an attachment.
type foreign struct {
	call  *cni.Call
	owner lease.Owner
	had   []netip.Addr // its addresses, where the runtime tells: without them every file is read
}

// dropHostLocal looks into host-local's own directory, under whatever name the network had then. What is wrong there is told,
// and no reason to keep anything of ours.
func (f foreign) dropHostLocal() {
	names, err := lease.Networks(hostLocalDir)
	errs := []error{err}
	for _, n := range names {
		if err := f.drop(hostLocal(n), n != f.call.Net.Name); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(os.Stderr, "bridge-l3: files of host-local: %v\n", err)
	}
}

// drop removes the attachment's files from one network's directory. Under another name than today's it may be another network
// that is there still: only an address counts then that is of this network's subnets and that the pod has not got any more,
// in a file that tells the interface.
func (f foreign) drop(store *lease.Store, renamed bool) error {
	may := func(netip.Addr) bool { return true }
	if renamed {
		subnets := f.subnets()
		may = func(a netip.Addr) bool {
			return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
		}
	}
	all, err := store.ForeignAt(f.had), error(nil)
	if len(f.had) == 0 {
		all, err = store.ForeignIn(may)
	}
	all = slices.DeleteFunc(all, func(x lease.Foreign) bool { return !x.Of(f.owner) || renamed && (x.Owner != f.owner || !may(x.Addr)) })
	if renamed && len(all) > 0 {
		has := f.podAddrs()
		all = slices.DeleteFunc(all, func(x lease.Foreign) bool { return has(x.Addr) })
	}
	errs := []error{err}
	for _, x := range all {
		errs = append(errs, store.Unlink(x))
	}
	return errors.Join(errs...)
}

// subnets are the network's; none where the configuration, or the node file, does not say.
func (f foreign) subnets() (out []netip.Prefix) {
	conf, _, err := parse(f.call)
	if err != nil || complete(&conf) != nil {
		return nil
	}
	for _, r := range slices.Concat(conf.Sets...) {
		out = append(out, r.Subnet)
	}
	return out
}

// podAddrs says which addresses the pod has: none without a namespace, and every one where nobody knows.
func (f foreign) podAddrs() func(netip.Addr) bool {
	if f.call.Netns == "" {
		return func(netip.Addr) bool { return false }
	}
	ns, err := openPod(f.call.Netns)
	if coded := (*cni.Error)(nil); errors.Is(err, fs.ErrNotExist) || errors.As(err, &coded) && coded.Code == cni.CodeUnknownContainer {
		return func(netip.Addr) bool { return false }
	}
	if err != nil {
		return func(netip.Addr) bool { return true }
	}
	defer ns.Close() //nolint:errcheck // a handle
	var all map[int][]netip.Prefix
	err = ns.Here(func() error {
		pod, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer pod.Close()
		all, err = pod.AllAddrs()
		return err
	})
	return func(a netip.Addr) bool {
		for _, list := range all {
			if slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return true
			}
		}
		return err != nil
	}
}

// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
	"github.com/l3edge/l3edge/pkg/core/version"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/chain"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/ipt"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
	"github.com/l3edge/l3edge/pkg/edge/proc"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// settings are those that pods and services need; what they should be depends on what runs here.
var settings = []string{
	"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding",
	"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables",
}

// patience is how long a daemon may take to answer.
const patience = 3 * time.Second

// Host looks at this host. It always returns what it could see; what it could not is told inside.
func Host(ctx context.Context) view.Host {
	h := view.Host{Seen: time.Now().Round(time.Millisecond), Version: version.Version, Settings: map[string]string{}}
	note := func(err error) {
		if err != nil {
			h.Problems = append(h.Problems, err.Error())
		}
	}
	var err error
	h.Name, err = os.Hostname()
	note(err)
	if n, err := nodefile.Read(mark.NodeFile); err == nil {
		h.Node, h.Name = &n, n.Name
	} else if errors.Is(err, fs.ErrNotExist) {
		h.NodeLack = mark.NodeFile + " is not there: routed writes it"
	} else {
		h.NodeLack = err.Error()
	}
	ask(ctx, mark.RoutedSocket, &h.Routed, &h.Routed.Problem)
	ask(ctx, mark.PortaldSocket, &h.Portald, &h.Portald.Problem)
	if _, err := os.Stat(mark.ContainerHost + "/proc/sys/net"); err == nil {
		h.Partial = "seen from a container, out of which neither the runtime's files nor pods are in sight"
		note(kernel(&h))
		note(unseen(&h))
		return h
	}
	h.Networks, err = Networks(mark.CNIConfDir)
	note(err)
	note(kernel(&h))
	h.Pods, err = pods()
	note(err)
	h.Leases, err = leases(h)
	note(err)
	return h
}

// unseen makes up for the configuration that is out of sight by what it has led to: networks by their leases, and the bridge
// by its address.
func unseen(h *view.Host) error {
	names, err := lease.Networks(mark.LeaseDir)
	errs := []error{err}
	slices.Sort(names)
	for _, name := range names {
		n := view.Network{Name: name, Plugins: []string{"bridge-l3"}, Bridge: "?"}
		for _, l := range h.Links {
			if l.Kind == "bridge" && slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return slices.Contains(h.PodSubnets(), a.Masked()) }) {
				n.Bridge = l.Name
			}
		}
		h.Networks = append(h.Networks, n)
	}
	h.Leases, err = leases(*h)
	return errors.Join(append(errs, err)...)
}

// ask reads a daemon's status.
func ask(ctx context.Context, socket string, into any, problem *string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		*problem = "does not run: " + socket + " is not there"
	} else if err := control.Dial(socket).Get(ctx, "/status", into); errors.Is(err, syscall.ECONNREFUSED) {
		*problem = "does not run: nobody answers on " + socket
	} else if err != nil {
		*problem = err.Error()
	}
}

// Networks reads the CNI configuration lists that name one of our plugins.
func Networks(dir string) ([]view.Network, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil {
		return nil, err
	}
	var out []view.Network
	var errs []error
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n, ok, err := view.ParseNetwork(f, text)
		if ok {
			out = append(out, n)
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// kernel reads links, addresses, routes, settings and which rules of ours are there.
func kernel(h *view.Host) error {
	var errs []error
	var err error
	h.Links, err = links()
	errs = append(errs, err)
	h.Routes, err = link.Routes()
	errs = append(errs, err)
	names := slices.Clone(settings)
	for _, n := range h.Networks {
		names = append(names, view.LocalNet(n.Bridge))
	}
	for _, name := range names {
		if v, err := sysctl.Get(name); err == nil {
			h.Settings[name] = v
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	h.Tables, err = nft.Tables()
	errs = append(errs, err)
	if h.Portald.Mode == "userspace" {
		f, err := ipt.Open(netip.IPv4Unspecified())
		if err == nil {
			h.Chains, err = f.Present()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func links() ([]view.Link, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Links()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range all {
		names[l.Index] = l.Name
	}
	out := make([]view.Link, 0, len(all))
	for _, l := range all {
		v := view.Link{Name: l.Name, Index: l.Index, Master: names[l.Master], Kind: l.Kind, Alias: l.Alias, MTU: l.MTU, Up: l.Up, Port: view.Port{Hairpin: l.Hairpin, Isolated: l.Isolated}}
		if v.Addrs, err = c.Addrs(l.Index, 0); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// pods are the attachments that the runtime remembers, each with what its namespace holds.
func pods() ([]view.Pod, error) {
	attached, err := chain.List(chain.CacheDir)
	errs := []error{err}
	out := make([]view.Pod, 0, len(attached))
	for _, a := range attached {
		p := a.Pod
		if conf, ok := network(a); ok {
			p.Port = &view.Port{Hairpin: conf.Hairpin, Isolated: conf.Isolated || conf.Routed}
		}
		errs = append(errs, enter(&p))
		if p.Alive {
			p.Unbound = unbound(a)
		}
		out = append(out, p)
	}
	errs = append(errs, proc.Fill(out))
	slices.SortFunc(out, func(a, b view.Pod) int { return addrOf(a).Compare(addrOf(b)) })
	return out, errors.Join(errs...)
}

// network is how bridge-l3 was told to make the attachment's port.
func network(a chain.Attachment) (podnet.Config, bool) {
	keys, err := rawjson.ParseObject(a.Config("bridge-l3"))
	if err != nil {
		return podnet.Config{}, false
	}
	conf, err := podnet.Parse(keys, nil)
	return conf, err == nil // else of a version that knew other keys
}

// Guard is what the attachment's pod may send as; ok is false where that is anything.
func Guard(a chain.Attachment) (g attach.Guard, ok bool) {
	conf, known := network(a)
	mac, err := net.ParseMAC(a.Want.MAC)
	if !known || err != nil || len(mac) != len(g.MAC) || !conf.CheckMAC && !conf.CheckSource {
		return attach.Guard{}, false
	}
	return attach.Bind(attach.Pod{MAC: attach.MAC(mac), Addrs: a.Want.Addrs}, conf.CheckSource), true
}

// unbound says why the attachment's port passes what its pod may not send, if it does.
func unbound(a chain.Attachment) string {
	want, ok := Guard(a)
	if !ok || a.Veth == "" {
		return ""
	}
	c, err := guard.Dial()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	switch have, err := c.Get(a.Veth); {
	case err != nil:
		return err.Error()
	case have.Equal(attach.Guard{}):
		return "table bridge " + mark.TablePods + " has nothing of it"
	case !have.Equal(want):
		return fmt.Sprintf("it may send as %s, %v, want %s, %v", have.MAC, have.Addrs, want.MAC, want.Addrs)
	}
	return ""
}

func addrOf(p view.Pod) netip.Addr {
	if len(p.Addrs) == 0 {
		return netip.Addr{}
	}
	return p.Addrs[0]
}

// enter looks at the pod's end of its cable. A namespace that is gone is no error.
func enter(p *view.Pod) error {
	if p.Netns == "" {
		return nil
	}
	ns, err := netns.Open(p.Netns)
	if err != nil {
		return nil //nolint:nilerr // gone, or a mount point that a reboot left
	}
	defer ns.Close() //nolint:errcheck // a handle
	p.Alive = true
	return ns.Do(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		p.Have = &view.Side{Down: true}
		l, err := c.Link(p.IfName)
		if errors.Is(err, rtnl.ErrNoLink) {
			return nil
		} else if err != nil {
			return err
		}
		p.Have.MAC, p.Have.Down = l.MAC.String(), !l.Up
		if p.Have.Addrs, err = c.Addrs(l.Index, 0); err != nil {
			return err
		}
		routes, err := c.Routes(0, l.Index)
		for _, r := range routes {
			p.Have.Routes = append(p.Have.Routes, view.Route{Dst: r.Dst, Via: r.Via})
		}
		return err
	})
}

// Used reports that the attachment has its veth on this node, or that its namespace is there.
func Used(container, ifName string) (bool, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	if _, err := c.Link(attach.PortName(container, ifName)); err == nil {
		return true, nil
	} else if !errors.Is(err, rtnl.ErrNoLink) {
		return false, err
	}
	all, err := chain.List(chain.CacheDir)
	for _, a := range all {
		if a.Container == container && a.IfName == ifName {
			if ns, err := netns.Open(a.Netns); err == nil {
				return true, ns.Close()
			}
		}
	}
	return false, err
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/edge/announce"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/engine/once"
)

// add makes one attachment: all of it, or on an error none of it.
func add(c *cni.Call) (*cni.Result, error) {
	conf, ask, err := parse(c)
	if err != nil {
		return nil, err
	}
	ns, err := openPod(c.Netns) // before anything is waited for, so that a DEL meanwhile is noticed
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the process ends
	if err := await(&conf); err != nil {
		return nil, err
	}
	dns := c.Net.DNS
	if dns.IsZero() && conf.ResolvConf != "" {
		if dns, err = cni.ReadResolvConf(conf.ResolvConf); err != nil {
			return nil, cni.Errorf(cni.CodeInvalidConfig, "ipam.resolvConf: %w", err)
		}
	}
	host, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	who := record(c)
	who.Guarded = conf.CheckMAC || conf.CheckSource
	who.Port = attach.PortName(c.ContainerID, c.IfName)
	if who.Node, err = ownNamespace(); err != nil {
		return nil, err
	}
	store := openStore(conf, c.Net.Name)
	held, err := store.Begin(who)
	if err != nil {
		return nil, leaseError(err)
	}
	defer held.Close()
	job := &job{call: c, conf: conf, ask: ask, dns: dns, ns: ns, host: host, store: store, lease: held}
	if err := job.clearInterrupted(); err != nil {
		return nil, err
	}
	if err := once.Run(job.steps()); err != nil {
		return nil, refusal(conf, err)
	}
	return job.result(), nil
}

// refusal gives the kernel's limits their codes, and says which key asks for what this kernel has not got.
func refusal(conf podnet.Config, err error) error {
	if errors.Is(err, rtnl.ErrBridgeFull) {
		return cni.Errorf(cni.CodeNoAddress, "%w", err)
	}
	if !errors.Is(err, rtnl.ErrNoVLANs) {
		return err
	}
	key := fmt.Sprintf("vlan: %d", conf.VLAN.Access)
	if conf.VLAN.Access == 0 {
		key = fmt.Sprintf("vlanTrunk: %v", conf.VLAN.Trunk)
	}
	return cni.Errorf(cni.CodeUnsupportedField, "%s: %w; give each VLAN a network with a bridge of its own", key, rtnl.ErrNoVLANs)
}

// job is one ADD under way: what has been found out and made so far.
type job struct {
	call   *cni.Call
	conf   podnet.Config
	ask    ask
	dns    cni.DNS
	ns     *netns.Handle
	host   *rtnl.Conn
	store  *lease.Store
	lease  *lease.Lease
	addrs  []attach.Addr
	bridge rtnl.Link
	want   attach.Attachment
	pod    *rtnl.Conn
	eth0   int // index in the pod
}

// steps is the plan of an ADD. The pod's end comes up before the node's end does, so that nothing the pod's kernel says
// on coming up is flooded to every port inside this ADD. Starting the port comes last: a port that is up means that the
// attachment is whole, and any other that an ADD was interrupted.
func (j *job) steps() []once.Step {
	steps := []once.Step{
		{Name: "claim addresses", Do: j.claim, Undo: j.giveBack},
		{Name: "prepare bridge", Do: j.prepareBridge},
		{Name: "make link", Do: j.makeLink, Undo: j.removeLink},
		{Name: "configure pod", Do: j.configurePod},
		{Name: "join VLANs", Do: j.joinVLANs},
		{Name: "bind port", Do: j.bind, Undo: j.unbind},
		{Name: "start port", Do: j.startPort},
	}
	if j.ask.mac != nil { // not made of the address, so neighbours may know the address with another one
		steps = append(steps, once.Step{Name: "announce addresses", Do: j.announce})
	}
	return steps
}

// startPort lets the pod speak and be heard. A pod that is to stay down gives its port no carrier to wait for.
func (j *job) startPort() error {
	err := j.host.StartPort(j.want.Port)
	if err != nil || j.want.Pod.Down {
		return err
	}
	return errors.Join(j.host.Await(j.want.Port.Name), j.pod.Await(j.want.Pod.Name))
}

func (j *job) announce() error {
	if j.want.Pod.Down {
		return nil
	}
	return j.ns.Here(func() error {
		for _, p := range j.want.Pod.Addrs {
			if err := announce.Send(j.eth0, j.want.Pod.MAC, p.Addr()); err != nil {
				return err
			}
		}
		return nil
	})
}

// clearInterrupted removes the link that an ADD that did not finish has left, and refuses when one did finish.
func (j *job) clearInterrupted() error {
	if j.lease.Fresh {
		return nil
	}
	port, err := j.host.Link(attach.PortName(j.call.ContainerID, j.call.IfName))
	if errors.Is(err, rtnl.ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := j.ours(port); err != nil {
		return err
	}
	if port.Up {
		return cni.Errorf(cni.CodeConflict, "container %s is attached by %s already; DEL first", j.call.ContainerID, j.call.IfName)
	}
	return j.host.Remove(port.Index, leave())
}

// ours refuses a port of another network: names of ports tell containers and interfaces apart only.
func (j *job) ours(port rtnl.Link) error {
	if isOurs(port, j.call.Net.Name) {
		return nil
	}
	return cni.Errorf(cni.CodeConflict, "container %s has an interface %s of another network (%s is %q)", j.call.ContainerID, j.call.IfName, port.Name, port.Alias)
}

// prepareBridge decides the attachment, now that the bridge's MTU can be known, and makes the bridge and the node fit.
func (j *job) prepareBridge() error {
	var err error
	if j.bridge, err = j.host.Link(j.conf.Bridge); err != nil && !errors.Is(err, rtnl.ErrNoLink) {
		return err
	}
	mtu, err := j.mtu()
	if err != nil {
		return err
	}
	if mtu < attach.LeastMTU6 && slices.ContainsFunc(j.addrs, func(a attach.Addr) bool { return a.Addr.Is6() }) {
		return cni.Errorf(cni.CodeInvalidConfig, "mtu: %d is less than the %d that IPv6 needs (it is the configured one, else that of bridge %s, else that of the way out)", mtu, attach.LeastMTU6, j.conf.Bridge)
	}
	j.want = attach.Decide(spec(j.call, j.conf, mtu, j.addrs, j.ask.mac))
	if j.bridge.Index == 0 {
		if err := stranger(j.host, j.want.Bridge.Gateway(), j.conf, j.want.Bridge.Subnets()); err != nil {
			return err
		}
	}
	j.bridge, err = ensureBridge(j.host, j.bridge, j.want, j.conf)
	return err
}

// mtu is the configured one, else the bridge's, else that of the way out, which may not be known yet: no more then than every
// interface takes that could be it.
func (j *job) mtu() (int, error) {
	if j.conf.MTU != 0 {
		return j.conf.MTU, nil
	}
	if j.bridge.Index != 0 {
		return j.bridge.MTU, nil
	}
	up, err := j.host.Uplink()
	if errors.Is(err, rtnl.ErrNoLink) {
		return j.host.LowestMTU()
	}
	return up.MTU, err
}

func (j *job) makeLink() error {
	err := j.host.MakeVeth(j.want.Port, j.bridge.Index, j.want.Pod, j.ns.Fd())
	if !errors.Is(err, rtnl.ErrExists) {
		return err
	}
	// The lease is fresh, so a port of this name is what is left of an attachment whose lease is gone.
	port, lerr := j.host.Link(j.want.Port.Name)
	if errors.Is(lerr, rtnl.ErrNoLink) {
		return cni.Errorf(cni.CodeConflict, "the container has an interface %s already", j.call.IfName)
	}
	if lerr == nil {
		lerr = j.ours(port)
	}
	if lerr == nil {
		lerr = j.host.Remove(port.Index, leave())
	}
	if lerr != nil {
		return lerr
	}
	return j.host.MakeVeth(j.want.Port, j.bridge.Index, j.want.Pod, j.ns.Fd())
}

func (j *job) removeLink() error {
	port, err := j.host.Link(j.want.Port.Name)
	if errors.Is(err, rtnl.ErrNoLink) {
		return nil
	}
	if err != nil || !isOurs(port, j.call.Net.Name) {
		return err
	}
	return j.host.Remove(port.Index, leave())
}

func (j *job) configurePod() error {
	return j.ns.Here(func() error {
		pod, err := rtnl.Dial()
		if err != nil {
			return err
		}
		j.pod = pod // for startPort; the process ends
		eth0, err := pod.Link(j.want.Pod.Name)
		if err != nil {
			return err
		}
		j.eth0 = eth0.Index
		if err := apply(j.want.Pod.Settings); err != nil {
			return err
		}
		for _, p := range j.want.Pod.Addrs {
			if _, err := pod.AddAddr(eth0.Index, p, j.conf.DAD); err != nil {
				return err
			}
		}
		if j.want.Pod.Down {
			return nil
		}
		if err := pod.Up(eth0.Index, false); err != nil {
			return err
		}
		for _, r := range j.want.Pod.Routes {
			if err := pod.AddRoute(eth0.Index, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// joinVLANs puts the port in its VLANs, before it passes anything.
func (j *job) joinVLANs() error {
	if len(j.want.Port.VLANs) == 0 {
		return nil
	}
	port, err := j.host.Link(j.want.Port.Name)
	if err != nil {
		return err
	}
	return j.host.SetVLANs(port.Index, j.want.Port)
}

// bind lets the port pass only what its pod may send, before it passes anything.
func (j *job) bind() error {
	if j.want.Port.Guard.Equal(attach.Guard{}) && !j.lease.Guarded {
		return nil
	}
	g, err := guard.Dial()
	if err != nil {
		return err
	}
	defer g.Close()
	if j.lease.Fresh {
		return g.Add(j.want.Port.Name, j.want.Port.Guard)
	}
	return g.Set(j.want.Port.Name, j.want.Port.Guard)
}

func (j *job) unbind() error {
	if j.want.Port.Guard.Equal(attach.Guard{}) {
		return nil
	}
	g, err := guard.Dial()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Set(j.want.Port.Name, attach.Guard{})
}

func (j *job) result() *cni.Result {
	w, podIndex := j.want, 2
	r := &cni.Result{
		Interfaces: []cni.Interface{
			{Name: w.Bridge.Name, MAC: j.bridge.MAC.String(), MTU: j.bridge.MTU},
			{Name: w.Port.Name, MAC: w.Port.MAC.String(), MTU: w.Port.MTU},
			{Name: w.Pod.Name, MAC: w.Pod.MAC.String(), MTU: w.Pod.MTU, Sandbox: j.call.Netns},
		},
		DNS: j.dns,
	}
	if leg := w.Bridge.Leg; leg != nil {
		r.Interfaces = append(r.Interfaces, cni.Interface{Name: leg.Name, MAC: leg.MAC.String(), MTU: leg.Port.MTU})
	}
	for i, a := range j.addrs {
		r.IPs = append(r.IPs, cni.IP{Address: w.Pod.Addrs[i], Gateway: a.Gateway, Interface: &podIndex})
	}
	own := len(w.Pod.Routes) - len(j.conf.Routes)
	for i, route := range w.Pod.Routes {
		if i >= own {
			route.Via = j.conf.Routes[i-own].Via // as configured: none means the gateway of the address
		}
		r.Routes = append(r.Routes, cni.Route{Dst: route.Dst, GW: route.Via, MTU: route.MTU, AdvMSS: route.AdvMSS,
			Priority: route.Priority, Table: route.Table, Scope: route.Scope})
	}
	return r
}

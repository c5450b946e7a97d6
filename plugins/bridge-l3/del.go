// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/orphan"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// del removes one attachment. It needs neither namespace nor previous result, and nothing to be there.
func del(c *cni.Call) error {
	conf := podnet.Locate(c.Keys)
	host, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer host.Close()
	store, owner := lease.At(conf.LeaseDir+"/"+c.Net.Name), record(c).Owner
	held, err := store.Find(owner)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return leaseError(err)
	}
	if held != nil {
		defer held.Close()
	}
	if err := detach(c, conf, host, held); err != nil {
		return err
	}
	if conf.Delegate != "" {
		if _, err := c.Delegate(conf.Delegate, "DEL"); err != nil {
			return err
		}
	}
	had := prevAddrs(c)
	if held != nil {
		if err := held.Release(had); err != nil || held.Port != "" { // an ADD of ours made it: host-local has nothing of this pod
			return err
		}
	}
	if held == nil {
		if err := dropRenamed(host, conf, c.Net.Name, owner, had); err != nil {
			return err
		}
	}
	f := foreign{call: c, owner: owner, had: had}
	err = f.drop(store, false) // ipam.dataDir may be host-local's own
	f.dropHostLocal()
	return err
}

// leave is how a link is deleted: by a child process that nobody waits for, which holds the descriptors in keep open.
func leave(keep ...int) func(int, []byte) error {
	return func(fd int, b []byte) error { return orphan.Write(fd, b, keep...) }
}

// detach removes the link, and what binds its port. The address stays held until it is gone.
func detach(c *cni.Call, conf podnet.Config, host *rtnl.Conn, held *lease.Lease) error {
	err := removePort(host, c.Net.Name, attach.PortName(c.ContainerID, c.IfName), held)
	if errors.Is(err, rtnl.ErrNoLink) {
		return detachForeign(c, conf, host)
	}
	return err
}

// isOurs says that a port of one of our names is this network's: its alias tells, which is set last, so that one without any
// is of an ADD that was interrupted. The names tell containers and interfaces apart only.
func isOurs(port rtnl.Link, network string) bool {
	return port.Alias == "" || strings.HasPrefix(port.Alias, attach.AliasPrefix(network))
}

// owns says that a lease of this network proves the port to be its own: somebody has changed the alias. One that names another
// of our networks counts for more, as a lease may be of an ADD that was killed before it saw that the port is there.
func owns(held *lease.Lease, port rtnl.Link) bool {
	return held != nil && held.Port == port.Name && !strings.HasPrefix(port.Alias, attach.AliasMark)
}

// removePort removes a port with its pod's end; ErrNoLink when it was not there, or is another network's. What binds it goes after it, through a
// socket that the process which deletes the link holds open: closing that waits for the kernel.
func removePort(host *rtnl.Conn, network, name string, held *lease.Lease) error {
	port, err := host.Link(name)
	if err == nil && !isOurs(port, network) && !owns(held, port) {
		return fmt.Errorf("%s is of another network: %w", name, rtnl.ErrNoLink)
	}
	guarded := held != nil && held.Guarded
	var keep []int
	var g *guard.Conn
	if guarded {
		var derr error
		if g, derr = guard.Dial(); derr != nil {
			return derr
		}
		defer g.Close()
		keep = []int{g.Fd()}
	}
	if err == nil {
		err = host.Remove(port.Index, leave(keep...))
	}
	if err != nil && !errors.Is(err, rtnl.ErrNoLink) || g == nil {
		return err
	}
	return errors.Join(err, g.Set(name, attach.Guard{}))
}

// detachForeign removes the pod's interface when another plugin made it on the same bridge: a node that changed from the
// reference plugin has such pods, and runtimes delete by the configuration of today.
func detachForeign(c *cni.Call, conf podnet.Config, host *rtnl.Conn) error {
	ns, err := openPod(c.Netns)
	if err != nil {
		return nil //nolint:nilerr // no namespace, no interface
	}
	defer ns.Close() //nolint:errcheck // a handle
	var eth0 rtnl.Link
	err = ns.Here(func() error {
		pod, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer pod.Close()
		eth0, err = pod.Link(c.IfName)
		return err
	})
	if errors.Is(err, rtnl.ErrNoLink) || err == nil && (eth0.Kind != "veth" || eth0.Peer == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	port, err := host.LinkAt(eth0.Peer)
	bridge, berr := host.Link(conf.Bridge)
	if err != nil || berr != nil || port.Kind != "veth" || port.Master != bridge.Index || port.Peer != eth0.Index ||
		!isOurs(port, c.Net.Name) && (port.Name == attach.PortName(c.ContainerID, c.IfName) || strings.HasPrefix(port.Alias, attach.AliasMark)) {
		return nil //nolint:nilerr // not on our bridge, or of another of our networks: not ours
	}
	return host.Remove(port.Index, leave())
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/edge/orphan"
)

func attachment(c *cni.Call) cni.Attachment {
	return cni.Attachment{ContainerID: c.ContainerID, IfName: c.IfName}
}

// with runs f on the node's hostPorts.
func with(f func(*nft.HostPorts) error) error {
	h, err := nft.OpenHostPorts()
	if err != nil {
		return err
	}
	h.Saved = saved
	recent := recentRemoval()
	err = f(h)
	if h.Removed() {
		noteRemoval()
	}
	return errors.Join(err, h.Close(recent, leave))
}

// linger outlasts what the kernel does after a removal: some ten milliseconds, more when the machine is busy.
const linger = 100 * time.Millisecond

// leave has the socket held open by a process that nobody waits for.
func leave(fd int) error { return orphan.Hold(linger, fd) }

// add publishes the pod's ports, all or none, and passes the result on. Without ports it does nothing at all.
func add(c *cni.Call) (*cni.Result, error) {
	prev := c.Net.PrevResult
	if prev == nil {
		return nil, cni.Errorf(cni.CodeInvalidConfig, "prevResult: missing; portal stands in a chain, behind a plugin that attaches the pod")
	}
	_, kerr := parse(c)
	ms, err := mappings(c)
	if err := errors.Join(kerr, err); err != nil || len(ms) == 0 {
		return prev, err
	}
	who, path := holder(c.Net.Name, attachment(c)), recordPath(c.Net.Name, attachment(c))
	return prev, with(func(h *nft.HostPorts) error {
		old, err := heldBy(h, path, who)
		if err != nil {
			return err
		}
		// What an earlier ADD left that was killed or asked for other ports; the same ports stay.
		old = slices.DeleteFunc(old, func(m nft.Mapping) bool { return slices.Contains(ms, m) })
		if err := h.Remove(who, old); err != nil {
			return err
		}
		if err := writeRecord(path, ms); err != nil {
			return err
		}
		if err := h.Add(who, ms); err != nil {
			return errors.Join(asCNI(err), h.Remove(who, ms), removeRecord(path))
		}
		if err := errors.Join(openLocalhost(prev, ms), forgetStrangers(h, ms)); err != nil {
			return errors.Join(err, h.Remove(who, ms), removeRecord(path), closeLocalhost())
		}
		return nil
	})
}

func asCNI(err error) error {
	var taken *nft.Conflict
	if errors.As(err, &taken) {
		return cni.Errorf(cni.CodeConflict, "%w", err)
	}
	return err
}

// del takes the attachment's ports away, whatever the configuration or the chain says now. It knows them from the
// record, so that an attachment without any costs one failed open.
func del(c *cni.Call) error {
	return release(c.Net.Name, attachment(c))
}

func release(network string, a cni.Attachment) error {
	path, who := recordPath(network, a), holder(network, a)
	if ms, err := readRecord(path); err == nil && ms == nil {
		return removeRecord(path) // an unfinished one
	}
	err := with(func(h *nft.HostPorts) error {
		ms, err := heldBy(h, path, who)
		if err == nil {
			err = h.Remove(who, ms)
		}
		if err != nil {
			return err
		}
		return forgetOrphans(h, ms)
	})
	if err != nil {
		return err
	}
	return errors.Join(removeRecord(path), closeLocalhost())
}

// heldBy are the ports that an attachment has, by its record; where that is damaged, by what the kernel says.
func heldBy(h *nft.HostPorts, path, who string) ([]nft.Mapping, error) {
	ms, err := readRecord(path)
	if err == nil {
		return ms, nil
	}
	all, err := h.List()
	for _, held := range all {
		if held.Holder == who {
			ms = append(ms, held.Mapping)
		}
	}
	return ms, err
}

// check compares the kernel with what the runtime asked for and names the first difference.
func check(c *cni.Call) error {
	if c.Net.PrevResult == nil {
		return cni.Errorf(cni.CodeInvalidConfig, "prevResult: missing")
	}
	_, kerr := parse(c)
	ms, err := mappings(c)
	if err := errors.Join(kerr, err); err != nil || len(ms) == 0 {
		return err
	}
	shut, err := shutLocalhost(c.Net.PrevResult, ms)
	if err != nil {
		return err
	}
	if len(shut) > 0 {
		return cni.Errorf(cni.CodeCheckFailed, "%s is 0, want 1 for hostPorts on 127.0.0.1", localnet(shut[0]))
	}
	who := holder(c.Net.Name, attachment(c))
	return with(func(h *nft.HostPorts) error {
		if err := h.Check(ms); err != nil {
			return cni.Errorf(cni.CodeCheckFailed, "%w", err)
		}
		for _, m := range ms {
			switch held, ok, err := h.Holder(m); {
			case err != nil:
				return err
			case !ok:
				return cni.Errorf(cni.CodeCheckFailed, "hostPort %s is not in the kernel", m)
			case held.Holder != who:
				return cni.Errorf(cni.CodeCheckFailed, "hostPort %s is held by %s", m, held.Holder)
			case held.To != m.To:
				return cni.Errorf(cni.CodeCheckFailed, "hostPort %s leads to %s", m, held.To)
			}
			switch ok, err := h.ReachesItself(m.To.Addr()); {
			case err != nil:
				return err
			case !ok:
				return cni.Errorf(cni.CodeCheckFailed, "pod %s is not in set self, and cannot reach itself by hostPort %s", m.To.Addr(), m)
			}
		}
		return nil
	})
}

// gc releases every attachment of this network that the runtime does not name: recorded, or found in the kernel only.
func gc(c *cni.Call) error {
	keep := map[string]bool{}
	for _, a := range c.Net.Valid {
		keep[holder(c.Net.Name, a)] = true
	}
	var errs []error
	list, err := os.ReadDir(filepath.Join(recordDir, c.Net.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read host port records: %w", err)
	}
	for _, e := range list {
		id, ifName, ok := strings.Cut(strings.TrimPrefix(e.Name(), "."), ":")
		if a := (cni.Attachment{ContainerID: id, IfName: ifName}); ok && !keep[holder(c.Net.Name, a)] {
			errs = append(errs, release(c.Net.Name, a))
		}
	}
	errs = append(errs, with(func(h *nft.HostPorts) error {
		all, err := h.List()
		if err != nil {
			return err
		}
		for _, held := range all {
			if strings.HasPrefix(held.Holder, c.Net.Name+"/") && !keep[held.Holder] {
				ms := []nft.Mapping{held.Mapping}
				errs = append(errs, h.Remove(held.Holder, ms), forgetOrphans(h, ms))
			}
		}
		return nil
	}), closeLocalhost())
	return errors.Join(errs...)
}

// status says whether an ADD would work, and whether services do.
func status(c *cni.Call) error {
	conf, err := parse(c)
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	socket, expected := conf.portald()
	return with(func(h *nft.HostPorts) error {
		v6 := slices.ContainsFunc(saved(), func(held nft.Held) bool { return held.To.Addr().Is6() })
		if err := h.Ensure(true, v6); err != nil { // of IPv6 only where there was some: not every node has it
			return cni.Errorf(cni.CodeNotAvailable, "%w", err)
		}
		return services(h, socket, expected)
	})
}

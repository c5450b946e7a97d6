// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/version"
)

// Report is what is in force. Its JSON is portald's answer to GET /status, which others read: fields are only added.
type Report struct {
	Version   string         `json:"version"`
	Mode      Mode           `json:"mode"`
	Synced    bool           `json:"synced"`             // what the sources say is in force, or is about to be within a second
	LastSync  time.Time      `json:"lastSync,omitzero"`  // the last time that it was
	LastError string         `json:"lastError,omitzero"` // why it is not
	Nets      []netip.Prefix `json:"portalNets"`
	Services  int            `json:"services"`
	Endpoints int            `json:"endpoints"`
	Portals   []Portal       `json:"portals"`
	Problems  []string       `json:"problems"` // what the sources say that cannot be in force, and why
}

// Portal is one portal as it was last programmed.
type Portal struct {
	VIP       netip.Addr       `json:"vip"`
	Protocol  string           `json:"protocol"`
	Port      uint16           `json:"port"`
	Service   string           `json:"service"`             // namespace/name
	PortName  string           `json:"portName,omitempty"`  // of the service's port
	Kind      string           `json:"kind"`                // ClusterIP, LoadBalancer, ExternalIP, NodePort
	Endpoints []netip.AddrPort `json:"endpoints"`           // for clients on this node
	Drops     bool             `json:"drops,omitempty"`     // without endpoints it is silent, instead of refusing
	Outside   *Choice          `json:"outside,omitempty"`   // for clients that are not on this node, where that differs
	Sources   []netip.Prefix   `json:"sources,omitempty"`   // who may come; empty: everybody
	Mode      Mode             `json:"mode"`                // who answers
	ProxyPort uint16           `json:"proxyPort,omitempty"` // userspace mode
	Traffic   *traffic.Stats   `json:"traffic,omitempty"`   // userspace mode
}

// Choice is the answer to one group of clients.
type Choice struct {
	Endpoints []netip.AddrPort `json:"endpoints"`
	Drops     bool             `json:"drops,omitempty"`
}

// Key is the portal as the log names it: "TCP 10.100.87.105:80".
func (p Portal) Key() string {
	return p.Protocol + " " + netip.AddrPortFrom(p.VIP, p.Port).String()
}

// Name is the service port as Kubernetes names it.
func (p Portal) Name() string {
	if p.PortName == "" {
		return p.Service
	}
	return p.Service + ":" + p.PortName
}

const (
	moment = time.Second      // a change that is being programmed for less than this is no reason to worry anybody
	lag    = 10 * time.Second // one that is not programmed for more than this is
)

// Report tells what is in force now.
func (k *Keeper) Report() Report {
	stats := k.o.Proxy.Stats()
	k.mu.Lock()
	defer k.mu.Unlock()
	r := Report{
		Version: version.Version, Mode: k.o.Mode, LastSync: k.lastSync, LastError: k.lastError, Nets: k.nets,
		Synced:   k.synced(),
		Services: k.services, Portals: []Portal{}, Problems: append([]string{}, slices.Sorted(maps.Keys(k.problems))...),
	}
	if k.d == nil {
		return r
	}
	held := k.d.held()
	for _, key := range Sorted(held) {
		p := held[key]
		one := Portal{
			VIP: key.Addr, Protocol: key.Protocol.String(), Port: key.Port, Service: p.Service.Name.String(), PortName: p.Service.Port,
			Endpoints: append([]netip.AddrPort{}, p.Endpoints...), Mode: NFTables,
			Kind: p.Kind.String(), Drops: p.OnEmpty == portal.Drop, Sources: p.Sources,
		}
		if p.Outside != nil {
			one.Outside = &Choice{append([]netip.AddrPort{}, p.Outside.Endpoints...), p.Outside.OnEmpty == portal.Drop}
		}
		if k.d.inForce(key).by == Userspace {
			one.Mode, one.ProxyPort = Userspace, k.ports[key]
			if s, ok := stats[key]; ok {
				one.Traffic = &s
			}
		}
		r.Endpoints += len(p.Endpoints)
		r.Portals = append(r.Portals, one)
	}
	return r
}

// synced reports that what the sources say is in force, or is about to be within a moment. The caller holds mu.
func (k *Keeper) synced() bool {
	return !k.lastSync.IsZero() && (k.behind.IsZero() || k.lastError == "" && time.Since(k.behind) < moment)
}

// held lists what is in force.
func (d *decider) held() map[portal.Key]portal.Portal {
	out := make(map[portal.Key]portal.Portal, len(d.kernel.Portals)+len(d.user.Portals))
	maps.Copy(out, d.kernel.Portals)
	maps.Copy(out, d.user.Portals)
	for key, was := range d.before {
		if delete(out, key); was.by != nobody {
			out[key] = was.Portal
		}
	}
	if len(d.denied) > 0 {
		maps.DeleteFunc(out, func(_ portal.Key, p portal.Portal) bool { return d.denied[p.Service.Name] != nil })
	}
	return out
}

// Healthy tells why the node should not be trusted to answer portals now.
func (k *Keeper) Healthy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.lastSync.IsZero():
		return errors.New("not synced yet: " + cmp.Or(k.lastError, "waiting for the first manifests"))
	case !k.behind.IsZero() && time.Since(k.behind) > lag:
		return fmt.Errorf("behind since %s: %s", k.behind.Format(time.RFC3339), cmp.Or(k.lastError, "a change is not programmed yet"))
	}
	return nil
}

// Sorted lists the keys of portals by service.
func Sorted(portals map[portal.Key]portal.Portal) []portal.Key {
	keys := slices.Collect(maps.Keys(portals))
	slices.SortFunc(keys, func(a, b portal.Key) int {
		return cmp.Or(compareNames(portals[a].Service, portals[b].Service), a.Compare(b))
	})
	return keys
}

func compareNames(a, b service.PortName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name.Name, b.Name.Name), cmp.Compare(a.Port, b.Port))
}

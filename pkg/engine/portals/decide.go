// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"cmp"
	"errors"
	"fmt"
	"maps"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Mode is a way to answer a portal.
type Mode string

// The two ways.
const (
	NFTables  Mode = "nftables"  // the kernel translates addresses: one connection, the endpoint sees the client
	Userspace Mode = "userspace" // the article's way: a rule leads to a proxy, which opens a second connection
)

// Desired is what a node should answer, and how.
type Desired struct {
	Table        portal.Table // everything
	Kernel, User portal.Table // by who answers
	Tuning       map[service.Name]tuning.Settings
	Services     int
	Problems     []error // what cannot be in force, and why
}

// Decide gives each portal of t, which was computed from s, to the data plane that its service or else the node asks for. In
// nftables mode the proxy answers services with session affinity: the kernel's rules would forget who went where.
func Decide(s service.Snapshot, t portal.Table, mode Mode) Desired {
	d := Desired{Table: t, Tuning: map[service.Name]tuning.Settings{}, Services: len(s.Services)}
	for _, r := range t.Refused {
		d.Problems = append(d.Problems, errors.New(r.String()))
	}
	sticky := false
	for name, svc := range s.Services {
		sticky = sticky || svc.Affinity > 0
		if len(svc.Annotations) == 0 {
			continue
		}
		tune, err := tuning.Parse(svc.Annotations)
		for _, e := range flatten(err) {
			d.Problems = append(d.Problems, fmt.Errorf("service %s: %w", name, e))
		}
		if tune != tuning.Default() {
			d.Tuning[name] = tune
		}
	}
	d.split(mode, sticky)
	return d
}

func (d *Desired) split(mode Mode, sticky bool) {
	var stray []portal.Key
	d.Kernel, d.User = d.Table, d.Table
	if mode == NFTables && !sticky && !d.wishes(Userspace) { // as on most nodes: no need to look at each of many portals
		d.User.Portals = nil
		return
	}
	d.Kernel.Portals, d.User.Portals = map[portal.Key]portal.Portal{}, map[portal.Key]portal.Portal{}
	for key, p := range d.Table.Portals {
		asked := Mode(d.Tuning[p.Service.Name].Mode)
		carried := key.Protocol == service.TCP || key.Protocol == service.UDP
		answer := cmp.Or(asked, mode)
		if answer == NFTables && p.Affinity > 0 { // the kernel's rules remember no clients, the proxy does
			if asked == "" && carried {
				answer = Userspace
			} else {
				d.Problems = append(d.Problems, fmt.Errorf("%s of %s: sessionAffinity ClientIP is not kept: nftables mode cannot, and %s",
					key, p.Service, whyKernel(asked)))
			}
		}
		switch {
		case answer == NFTables:
			d.Kernel.Portals[key] = p
		case carried:
			d.User.Portals[key] = p
		default:
			d.Problems = append(d.Problems, fmt.Errorf("%s of %s: userspace mode cannot carry it", key, p.Service))
			stray = append(stray, key)
		}
	}
	if len(stray) > 0 {
		d.Table.Portals = maps.Clone(d.Table.Portals)
		for _, key := range stray {
			delete(d.Table.Portals, key)
		}
	}
}

// whyKernel says why the kernel answers what it cannot answer whole.
func whyKernel(asked Mode) string {
	if asked == NFTables {
		return "the service asks for it"
	}
	return "userspace mode cannot carry the protocol"
}

// wishes reports whether any service asks for the mode.
func (d *Desired) wishes(mode Mode) bool {
	for _, t := range d.Tuning {
		if Mode(t.Mode) == mode {
			return true
		}
	}
	return false
}

// flatten lists the errors that errors.Join has joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only what Join made
		var out []error
		for _, one := range many.Unwrap() {
			out = append(out, flatten(one)...)
		}
		return out
	}
	return []error{err}
}

// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// complain logs the problems that are new and those that are gone.
func (k *Keeper) complain(problems []error) {
	now := make(map[string]bool, len(problems))
	for _, p := range problems {
		now[shortened(p.Error())] = true
	}
	k.mu.Lock()
	before := k.problems
	k.problems = now
	k.mu.Unlock()
	k.list(slog.LevelError, "problem", now, before)
	k.list(slog.LevelInfo, "problem solved", before, now)
}

// list logs what is in one set of problems and not in the other; of very many the first.
func (k *Keeper) list(level slog.Level, msg string, in, notIn map[string]bool) {
	said := 0
	for _, p := range slices.Sorted(maps.Keys(in)) {
		if notIn[p] {
			continue
		}
		if said++; said <= chatter {
			k.o.Log.Log(context.Background(), level, msg, "error", p)
		}
	}
	if said > chatter {
		k.o.Log.Log(context.Background(), level, msg+"s, too many to list", "count", said-chatter)
	}
}

// shortened keeps a problem readable whatever somebody has written into an object.
func shortened(s string) string {
	const head, tail = 300, 200 // where it is, and what is wrong
	if len(s) <= head+tail {
		return s
	}
	return strings.ToValidUTF8(s[:head]+" ... "+s[len(s)-tail:], "")
}

// chatter is how many portals may open or close at once before the log counts them instead of naming them.
const chatter = 100

// tell logs which portals have opened and closed, in the article's words. The caller holds mu.
func (k *Keeper) tell(portsBefore map[portal.Key]uint16) {
	look := maps.Clone(k.d.before)
	for _, ports := range []map[portal.Key]uint16{k.ports, portsBefore} { // ports may change without their portals
		for key := range ports {
			if k.ports[key] != portsBefore[key] {
				look[key] = k.d.inForce(key)
			}
		}
	}
	opened, closed := map[portal.Key]portal.Portal{}, map[portal.Key]portal.Portal{}
	for key, was := range look {
		now := k.d.answered(key)
		if was.by != nobody && now.by != nobody && was.Service == now.Service && k.ports[key] == portsBefore[key] {
			continue
		}
		if was.by != nobody {
			closed[key] = was.Portal
		}
		if now.by != nobody {
			opened[key] = now.Portal
		}
	}
	k.say("closed portal", closed, portsBefore)
	k.say("opened portal", opened, k.ports)
}

func (k *Keeper) say(msg string, portals map[portal.Key]portal.Portal, ports map[portal.Key]uint16) {
	if len(portals) > chatter {
		k.o.Log.Info(msg+"s", "count", len(portals))
		return
	}
	for _, key := range Sorted(portals) {
		log := k.o.Log.With("service", short(portals[key].Service), "portal", key.String())
		if ports[key] == 0 {
			log.Info(msg)
			continue
		}
		for _, from := range []string{"containers", "host"} {
			log.Info(msg, "from", from, "proxyPort", ports[key])
		}
	}
}

// short is a service's name as the article's log has it: without the namespace when that is default.
func short(p service.PortName) string {
	s := p.String()
	if p.Namespace == "default" {
		return s[len("default/"):]
	}
	return s
}

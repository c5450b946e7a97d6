// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

func everySwitch(t *testing.T, f func(t *testing.T, mls lab.Kind)) {
	for _, mls := range lab.Kinds() {
		t.Run(string(mls), func(t *testing.T) { f(t, mls) })
	}
}

// status is what these tests read of routed status --json.
type status struct {
	ASN      uint32     `json:"asn"`
	RouterID netip.Addr `json:"routerID"`
	Sessions []struct {
		Peer  string `json:"peer"`
		ASN   uint32 `json:"asn"`
		State string `json:"state"`
	} `json:"sessions"`
}

// ways are a host's unicast routes to prefixes, without what the kernel or the plugin made: "10.10.20.0/24 via 10.20.30.1".
func ways(t *testing.T, h *lab.Host, protocol int) []string {
	t.Helper()
	routes, err := h.KernelRoutes(protocol)
	must(t, err)
	var out []string
	for _, r := range routes {
		if strings.HasPrefix(r, "unreachable ") {
			continue
		}
		f := strings.Fields(r)
		via := slices.Index(f, "via")
		if via < 0 || via+1 == len(f) {
			t.Fatalf("%s: cannot read the route %q", h.Name, r)
		}
		out = append(out, f[0]+" via "+f[via+1])
	}
	slices.Sort(out)
	return out
}

// Promise 4: routed, told nothing but the switch's name, does what static routes did, against any switch, within 3 s.
func TestPromise04BGPInPlaceOfStatics(t *testing.T) {
	everySwitch(t, func(t *testing.T, mls lab.Kind) {
		l := labtest.Up(t, mls)
		for _, h := range l.Nodes() {
			must(t, h.StartRouted())
		}
		labtest.Within(t, 3*time.Second, "routes in all FIBs", l.Converged)

		want := []string{
			"10.10.10.0/24 via 10.20.30.62", "10.10.20.0/24 via 10.20.30.63",
			"10.10.30.0/24 via 192.168.10.64", "10.10.40.0/24 via 192.168.10.65",
		}
		if d := cmp.Diff(want, ways(t, l.MLS.Host, l.MLS.RouteProtocol())); d != "" {
			t.Errorf("the switch's BGP routes (-want +got):\n%s", d)
		}
		for line := range strings.Lines(run(t, l.MLS.Place, "ip", "-4", "route")) {
			if !strings.Contains(line, " proto kernel ") && !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(line, w[:14]) }) {
				t.Errorf("the switch has a route that is neither connected nor learned: %s", line)
			}
		}
		for _, h := range l.Nodes() {
			var s status
			must(t, json.Unmarshal([]byte(run(t, h.Place, "routed", "status", "--json")), &s))
			a := h.Spec.Addr.Addr().As4()
			asn := 4200000000 + uint32(a[1])<<16 + uint32(a[2])<<8 + uint32(a[3])
			if s.ASN != asn || s.RouterID != h.Spec.Addr.Addr() {
				t.Errorf("%s: ASN %d, router id %s; want %d, %s", h.Name, s.ASN, s.RouterID, asn, h.Spec.Addr.Addr())
			}
			if len(s.Sessions) != 1 || s.Sessions[0].ASN != topology.MLSASN || s.Sessions[0].State != "established" {
				t.Errorf("%s: sessions %+v, want one, established, with the learned ASN %d", h.Name, s.Sessions, topology.MLSASN)
			}
			if got := ways(t, h, mark.RouteRouted); len(got) != 3 {
				t.Errorf("%s: routes to other nodes' pods: %v, want 3", h.Name, got)
			}
		}
		one, four := addPod(t, l, "kubminion1", "one"), addPod(t, l, "kubminion4", "four")
		if a := ask(t, one.Place, on(four.IP, 8080)); a.Client.Addr() != one.IP {
			t.Errorf("%s saw %s, want %s", four.Name, a.Client, one.IP)
		}
	})
}

// Promise 5: a stopped routed takes its route along at once; started again, or killed and started again, it comes back,
// and no kernel holds a duplicate or a stale route.
func TestPromise05StopStartKill(t *testing.T) {
	everySwitch(t, func(t *testing.T, mls lab.Kind) {
		l := routed(t, mls)
		node, other := l.Hosts["kubminion1"], l.Hosts["kubminion3"]
		before := run(t, node.Place, "ip", "-4", "route")

		must(t, node.Routed.Stop())
		labtest.Within(t, time.Second, "the route leaves the switch and the other nodes", func() error {
			return errors.Join(lacks(l.MLS.Host, "10.10.10.0/24"), lacks(other, "10.10.10.0/24"))
		})
		if got, _ := node.KernelRoutes(mark.RouteRouted); len(got) > 0 {
			t.Errorf("a stopped routed leaves routes in its kernel: %v", got)
		}
		must(t, node.StartRouted())
		labtest.Within(t, 5*time.Second, "back after a start", l.Converged)

		node.Routed.Kill()
		must(t, l.Hosts["kubminion2"].Routed.Stop()) // its route goes while nobody tends the killed one's kernel
		must(t, node.StartRouted())
		labtest.Within(t, 10*time.Second, "the killed routed sweeps what went meanwhile", func() error {
			return errors.Join(lacks(node, "10.10.20.0/24"), lacks(l.MLS.Host, "10.10.20.0/24"))
		})
		must(t, l.Hosts["kubminion2"].StartRouted())
		labtest.Within(t, 5*time.Second, "back after kill -9", l.Converged)
		for _, h := range append(l.Nodes(), l.MLS.Host) {
			routes := ways(t, h, map[bool]int{true: l.MLS.RouteProtocol(), false: mark.RouteRouted}[h == l.MLS.Host])
			if c := slices.Compact(slices.Clone(routes)); len(c) != len(routes) {
				t.Errorf("%s has duplicate routes: %v", h.Name, routes)
			}
		}
		after := run(t, node.Place, "ip", "-4", "route")
		if d := cmp.Diff(withoutNexthopIDs(before), withoutNexthopIDs(after)); d != "" {
			t.Errorf("the node's routes before and after (-before +after):\n%s", d)
		}
	})
}

func lacks(h *lab.Host, prefix string) error {
	out, err := h.Run("ip", "-4", "route", "show", prefix)
	if err == nil && strings.Contains(out, " via ") {
		err = fmt.Errorf("%s has %s", h.Name, out)
	}
	return err
}

// withoutNexthopIDs drops the ids of nexthop objects, which are names and not facts.
func withoutNexthopIDs(routes string) []string {
	var out []string
	for line := range strings.Lines(routes) {
		f := strings.Fields(line)
		if i := slices.Index(f, "nhid"); i >= 0 {
			f = slices.Delete(f, i, i+2)
		}
		out = append(out, strings.Join(f, " "))
	}
	slices.Sort(out)
	return out
}

// Promise 10, the network's half: no router ever hears of the portal net.
func TestPromise10PortalNetStaysLocal(t *testing.T) {
	l := routed(t, lab.Embedded)
	portal(t, l, "nftables")
	for _, h := range []*lab.Host{l.MLS.Host, l.Hosts["outside"], l.Hosts["kubmasta"]} {
		if out := run(t, h.Place, "ip", "-4", "route"); strings.Contains(out, "10.100.") {
			t.Errorf("%s has a route to the portal net:\n%s", h.Name, out)
		}
	}
	for _, h := range l.Nodes() {
		for _, r := range ways(t, h, mark.RouteRouted) {
			if strings.HasPrefix(r, "10.100.") {
				t.Errorf("%s learned the portal net: %s", h.Name, r)
			}
		}
	}
	if l.Hosts["outside"].Reaches(vip) == nil {
		t.Error("outside reached a portal")
	}
	node := l.Hosts["kubminion1"]
	must(t, node.Portald.Stop())
	for net, other := range map[string]string{"10.10.0.0/16": "10.10.10.0/24", "10.20.0.0/16": "10.20.30.0/24"} {
		out, err := node.Run("timeout", "5", "portald", "--services="+lab.ServicesDir, "--portal-net="+net)
		if err == nil || !strings.Contains(err.Error(), net) || !strings.Contains(err.Error(), other) {
			t.Errorf("portal net %s: want a refusal that names %s, got %v %s", net, other, err, out)
		}
		if err != nil && strings.Contains(err.Error(), "status 124") {
			t.Errorf("portal net %s: portald did not end by itself", net)
		}
	}
}

// Promise 11: a node off the network takes its own pods along and nothing else.
func TestPromise11NodeOffTheNetwork(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods, err := l.AddWebPods()
	must(t, err)
	outside := l.Hosts["outside"].Place
	reach := func(i int) error { return outside.Reaches(on(pods[i].IP, 8080)) }

	must(t, l.Unplug("kubminion3"))
	for i, p := range pods {
		err := reach(i)
		if off := p.Host.Name == "kubminion3"; off && err == nil {
			t.Errorf("%s answers from a node that is off the network", p.Name)
		} else if !off && err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if a := ask(t, pods[0].Place, on(pods[3].IP, 8080)); a.Client.Addr() != pods[0].IP {
		t.Errorf("across the segments: %v", a)
	}
	if err := pods[2].Reaches("127.0.0.1:8080"); err != nil {
		t.Errorf("the lone node's pod has stopped: %v", err)
	}
	must(t, l.Replug("kubminion3"))
	labtest.Within(t, 30*time.Second, "the node is back", func() error { return errors.Join(l.Converged(), reach(2)) })
}

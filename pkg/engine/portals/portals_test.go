// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// plane is a data plane that only notes what it is told.
type plane struct {
	name string
	did  *[]string
	fail error
	busy func() // while Apply runs
	held portal.Table
}

func (p *plane) Apply(_ context.Context, t portal.Table, _ map[service.Name]tuning.Settings) error {
	*p.did = append(*p.did, fmt.Sprintf("%s apply %d", p.name, len(t.Portals)))
	if p.busy != nil {
		p.busy()
	}
	p.held = t
	return p.fail
}
func (p *plane) Forget() error { *p.did = append(*p.did, p.name+" forget"); return nil }
func (p *plane) Cleanup(context.Context) error {
	*p.did = append(*p.did, p.name+" cleanup")
	return nil
}
func (p *plane) Stats() map[portal.Key]traffic.Stats {
	out := map[portal.Key]traffic.Stats{}
	for key := range p.held.Portals {
		out[key] = traffic.Stats{Accepted: 7, Endpoints: []traffic.Endpoint{{State: traffic.Up}}}
	}
	return out
}
func (p *plane) Ports() map[portal.Key]uint16 {
	out := map[portal.Key]uint16{}
	for key := range p.held.Portals {
		out[key] = 39770
	}
	return out
}

// rig is a Keeper on two such planes.
type rig struct {
	*Keeper
	kernel, proxy plane
	did           []string
	log           bytes.Buffer
	told          service.Delta
}

// SetSnapshot tells the Keeper what leads to s.
func (r *rig) SetSnapshot(s service.Snapshot, err error) {
	d := s.Delta()
	for name := range r.told {
		if _, still := d[name]; !still {
			d[name] = nil
		}
	}
	r.told = s.Delta()
	r.Change(d, err)
}

func newRig(mode Mode, change func(*Options)) *rig {
	r := &rig{}
	r.kernel, r.proxy = plane{name: "kernel", did: &r.did}, plane{name: "proxy", did: &r.did}
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	o := Options{
		Mode: mode, Nets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}, Node: node.Node{Name: "kubminion1"},
		Kernel: &r.kernel, Proxy: &r.proxy, Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{ReplaceAttr: noTime})),
	}
	if change != nil {
		change(&o)
	}
	r.Keeper = New(o)
	return r
}

// took returns what the planes were told since the last call.
func (r *rig) took() string {
	s := strings.Join(r.did, ", ")
	r.did = nil
	return s
}

// said returns the log since the last call.
func (r *rig) said() string {
	s := r.log.String()
	r.log.Reset()
	return s
}

// services is a snapshot of services default/NAME on port 80, each given as "NAME VIP" and then annotations "KEY=VALUE".
func services(list ...string) service.Snapshot {
	s := service.Snapshot{Services: map[service.Name]service.Service{}, Endpoints: map[service.PortName][]service.Endpoint{}}
	for _, text := range list {
		f := strings.Fields(text)
		name := service.Name{Namespace: "default", Name: f[0]}
		svc := service.Service{
			Name: name, ClusterIPs: []netip.Addr{netip.MustParseAddr(f[1])}, Ports: []service.Port{{Protocol: service.TCP, Port: 80}},
			Annotations: map[string]string{},
		}
		for _, a := range f[2:] {
			key, value, _ := strings.Cut(a, "=")
			svc.Annotations[tuning.Prefix+key] = value
		}
		s.Services[name] = svc
		s.Endpoints[service.PortName{Name: name}] = []service.Endpoint{{Addr: netip.MustParseAddrPort("10.10.10.2:8080"), Ready: true, Serving: true}}
	}
	return s
}

func (r *rig) sync(t *testing.T) {
	t.Helper()
	if err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEachServiceIsAnsweredByWhomItAsks(t *testing.T) {
	r := newRig(NFTables, nil)
	r.sync(t)
	if got := r.took(); got != "" {
		t.Errorf("before the first snapshot: %s", got)
	}
	for _, step := range []struct {
		name string
		s    service.Snapshot
		want string
	}{
		{"the kernel alone, the proxy's remains removed", services("web 10.100.0.5"), "kernel apply 1, proxy cleanup"},
		{"one moves to the proxy, which takes it over first", services("web 10.100.0.5 mode=userspace", "db 10.100.0.6"), "proxy apply 1, kernel apply 1"},
		{"both keep their parts", services("web 10.100.0.5 mode=userspace"), "kernel apply 0, proxy apply 1"},
		{"it moves back, the kernel takes it over first", services("web 10.100.0.5"), "kernel apply 1, proxy cleanup"},
		{"what is clean is not cleaned again", services("web 10.100.0.5", "db 10.100.0.6"), "kernel apply 2"},
	} {
		r.SetSnapshot(step.s, nil)
		r.sync(t)
		if got := r.took(); got != step.want {
			t.Errorf("%s:\ngot  %s\nwant %s", step.name, got, step.want)
		}
	}
	r.sync(t)
	if got := r.took(); got != "kernel forget, proxy forget, kernel apply 2" {
		t.Errorf("a sync without news looks what others did: %s", got)
	}
}

func TestWhatOthersChangedIsRepairedWithTheNextNews(t *testing.T) {
	r := newRig(NFTables, nil)
	r.SetSnapshot(services("web 10.100.0.5"), nil)
	r.sync(t)
	r.took()
	r.said()
	r.Distrust()
	r.Distrust()
	if got := strings.Count(r.said(), "others changed our rules"); got != 1 {
		t.Errorf("said %d times before the repair", got)
	}
	r.SetSnapshot(services("web 10.100.0.5", "db 10.100.0.6"), nil)
	r.kernel.fail = errors.New("busy")
	if r.Sync(t.Context()) == nil {
		t.Error("no error")
	}
	r.kernel.fail = nil
	r.took()
	for _, step := range []struct{ name, want string }{
		{"after an error still", "kernel forget, proxy forget, kernel apply 2"},
		{"and then no more", "kernel apply 1"},
	} {
		r.sync(t)
		if got := r.took(); got != step.want {
			t.Errorf("%s: %s", step.name, got)
		}
		r.SetSnapshot(services("web 10.100.0.5"), nil)
	}
}

func TestTheLogHasTheArticlesWords(t *testing.T) {
	r := newRig(Userspace, nil)
	r.SetSnapshot(services("webfrontend 10.100.87.105"), nil)
	r.sync(t)
	r.SetSnapshot(services(), nil)
	r.sync(t)
	want := `level=INFO msg="opened portal" service=webfrontend portal="TCP 10.100.87.105:80" from=containers proxyPort=39770
level=INFO msg="opened portal" service=webfrontend portal="TCP 10.100.87.105:80" from=host proxyPort=39770
level=INFO msg="closed portal" service=webfrontend portal="TCP 10.100.87.105:80" from=containers proxyPort=39770
level=INFO msg="closed portal" service=webfrontend portal="TCP 10.100.87.105:80" from=host proxyPort=39770
`
	if d := cmp.Diff(want, r.said()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("s%d 10.100.1.%d", i, i+1))
	}
	r.SetSnapshot(services(many...), nil)
	r.sync(t)
	if got := r.said(); got != "level=INFO msg=\"opened portals\" count=101\n" {
		t.Errorf("many at once:\n%s", got)
	}
}

func TestProblemsAreToldOncePerChange(t *testing.T) {
	r := newRig(NFTables, nil)
	file := errors.New("web.yaml:4: no such thing")
	r.SetSnapshot(services("web 10.100.0.5 balance=best", "stray 172.30.0.1", "good 10.100.0.6"), errors.Join(file))
	for range 3 {
		r.sync(t)
	}
	want := `level=ERROR msg=problem error="TCP 172.30.0.1:80 of default/stray: outside the portal net 10.100.0.0/16"
level=ERROR msg=problem error="service default/web: l3edge.dev/balance: \"best\" is none of round-robin least-connections random-two maglev"
level=ERROR msg=problem error="web.yaml:4: no such thing"
level=INFO msg="opened portal" service=good portal="TCP 10.100.0.6:80"
level=INFO msg="opened portal" service=web portal="TCP 10.100.0.5:80"
`
	if d := cmp.Diff(want, r.said()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	r.SetSnapshot(services("web 10.100.0.5", "good 10.100.0.6"), nil)
	r.sync(t)
	if got := r.said(); strings.Count(got, "problem solved") != 3 || strings.Count(got, "\n") != 3 {
		t.Errorf("mended:\n%s", got)
	}
}

func TestUserspaceCannotCarrySCTP(t *testing.T) {
	s := services("web 10.100.0.5")
	for name, svc := range s.Services {
		svc.Ports = append(svc.Ports, service.Port{Name: "s", Protocol: service.SCTP, Port: 9})
		s.Services[name] = svc
	}
	d := Decide(s, portal.Options{}, Userspace)
	if len(d.Problems) != 1 || d.Problems[0].Error() != "SCTP 10.100.0.5:9 of default/web:s: userspace mode cannot carry it" {
		t.Errorf("problems %v", d.Problems)
	}
	if len(d.User.Portals) != 1 || len(d.Kernel.Portals) != 0 {
		t.Errorf("%d portals for the proxy, %d for the kernel", len(d.User.Portals), len(d.Kernel.Portals))
	}
}

func TestHealthFollowsTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settled := 0
		refusal := errors.New("overlap")
		var check error
		r := newRig(NFTables, func(o *Options) {
			o.Settled = func() error { settled++; return nil }
			o.Prepare = func(node.Node, []netip.Prefix) error { return check }
		})
		state := func(what string, synced bool, health string) {
			t.Helper()
			msg := "<nil>"
			if err := r.Healthy(); err != nil {
				msg = err.Error()
			}
			if got := r.Report().Synced; got != synced || !strings.HasPrefix(msg, health) {
				t.Errorf("%s: synced %v, health %s; want %v, %s", what, got, msg, synced, health)
			}
		}
		state("at start", false, "not synced yet: waiting for the first manifests")
		r.SetSnapshot(services("web 10.100.0.5"), nil)
		r.kernel.fail = errors.New("no netlink")
		if err := r.Sync(t.Context()); err == nil {
			t.Error("no error")
		}
		state("after a first failure", false, "not synced yet: no netlink")
		r.kernel.fail = nil
		r.sync(t)
		state("in force", true, "<nil>")
		if settled != 1 {
			t.Errorf("settled %d times", settled)
		}
		r.SetSnapshot(services("web 10.100.0.6"), nil)
		state("a change that has just come", true, "<nil>")
		time.Sleep(2 * time.Second)
		state("one that takes its time", false, "<nil>")
		time.Sleep(10 * time.Second)
		state("one that takes too long", false, "behind since ")
		r.kernel.busy = func() { r.SetSnapshot(services("web 10.100.0.7"), nil); r.kernel.busy = nil }
		r.sync(t)
		time.Sleep(2 * time.Second)
		state("something came meanwhile", false, "<nil>")
		r.sync(t)
		state("in force again", true, "<nil>")
		check = refusal
		if err := r.Sync(t.Context()); !errors.Is(err, refusal) {
			t.Errorf("a refused node: %v", err)
		}
		r.took()
		state("refused", false, "<nil>")
		if settled != 1 {
			t.Errorf("settled %d times", settled)
		}
	})
}

func TestNodeNews(t *testing.T) {
	r := newRig(NFTables, nil)
	r.SetSnapshot(services("web 10.100.0.5"), nil)
	r.sync(t)
	if r.SetNode(node.Node{Name: "kubminion1"}) {
		t.Error("the same node is no news")
	}
	if !r.SetNode(node.Node{Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}}) {
		t.Error("another subnet is news")
	}
	r.sync(t)
	if got := r.kernel.held.Pods; !slices.Equal(got, r.Node().PodSubnets) {
		t.Errorf("the table was computed for %v", got)
	}
}

func TestReportAndMetrics(t *testing.T) {
	r := newRig(NFTables, nil)
	r.SetSnapshot(services("web 10.100.0.5 mode=userspace", "db 10.100.0.6"), nil)
	r.sync(t)
	rep := r.Report()
	rep.LastSync = time.Time{}
	got, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "version": "devel",
 "mode": "nftables",
 "synced": true,
 "portalNets": [
  "10.100.0.0/16"
 ],
 "services": 2,
 "endpoints": 2,
 "portals": [
  {
   "vip": "10.100.0.6",
   "protocol": "TCP",
   "port": 80,
   "service": "default/db",
   "kind": "ClusterIP",
   "endpoints": [
    "10.10.10.2:8080"
   ],
   "mode": "nftables"
  },
  {
   "vip": "10.100.0.5",
   "protocol": "TCP",
   "port": 80,
   "service": "default/web",
   "kind": "ClusterIP",
   "endpoints": [
    "10.10.10.2:8080"
   ],
   "mode": "userspace",
   "proxyPort": 39770,
   "traffic": {
    "accepted": 7,
    "active": 0,
    "retries": 0,
    "failed": 0,
    "limited": 0,
    "ejected": 0,
    "bytesIn": 0,
    "bytesOut": 0,
    "endpoints": [
     {
      "addr": "",
      "state": "up",
      "active": 0
     }
    ]
   }
  }
 ],
 "problems": []
}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	var m strings.Builder
	if err := r.WriteMetrics(&m); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"portald_synced 1\n", "portald_healthy 1\n", "portald_portals 2\n", "portald_syncs_total{result=\"ok\"} 1\n",
		"portald_network_programming_duration_seconds_count 1\n", "portald_sync_duration_seconds_bucket{le=\"+Inf\"} 1\n",
		"portald_proxy_connections_total{service=\"default/web\",port=\"\",portal=\"TCP 10.100.0.5:80\"} 7\n",
		"portald_proxy_endpoints_up{service=\"default/web\",port=\"\",portal=\"TCP 10.100.0.5:80\"} 1\n",
		"portald_proxy_portals_omitted 0\n",
	} {
		if !strings.Contains(m.String(), line) {
			t.Errorf("missing %sin\n%s", line, m.String())
		}
	}
	if strings.Contains(m.String(), "default/db") {
		t.Error("a portal of the kernel has proxy metrics")
	}
}

func TestMetricsAreBounded(t *testing.T) {
	many := make([]Portal, maxSeries+5)
	for i := range many {
		many[i] = Portal{Service: fmt.Sprint("default/s", i), Traffic: &traffic.Stats{}}
	}
	var b strings.Builder
	writeTraffic(&b, many)
	if n := strings.Count(b.String(), "portald_proxy_connections_total{"); n != maxSeries || !strings.Contains(b.String(), "portald_proxy_portals_omitted 5\n") {
		t.Errorf("%d series", n)
	}
}

// BenchmarkSync is one endpoint of one service that changes, among as many others; the data planes cost nothing. It must be
// flat.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 30000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(NFTables, func(o *Options) { o.Log = slog.New(slog.DiscardHandler) })
			var list []string
			for i := range n {
				list = append(list, fmt.Sprintf("s%d 10.100.%d.%d", i, i/250, i%250+1))
			}
			r.SetSnapshot(services(list...), nil)
			one := r.told[service.Name{Namespace: "default", Name: "s77"}]
			if err := r.Sync(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now := *one
				now.Endpoints = [][]service.Endpoint{{{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, 10, byte(i)}), 8080), Ready: true, Serving: true}}}
				r.Change(service.Delta{one.Service.Name: &now}, nil)
				if err := r.Sync(b.Context()); err != nil {
					b.Fatal(err)
				}
				r.did = nil
			}
		})
	}
}

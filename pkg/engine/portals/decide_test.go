// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

func TestSessionAffinityIsKeptByWhoeverAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, service string
		mode          Mode
		protocol      service.Protocol
		user          bool
	}{
		{"the kernel, by default", "web 10.100.0.5", NFTables, service.TCP, false},
		{"also SCTP", "web 10.100.0.5", NFTables, service.SCTP, false},
		{"the proxy, where a service asks for it", "web 10.100.0.5 mode=userspace", NFTables, service.TCP, true},
		{"the proxy, on a node of that mode", "web 10.100.0.5", Userspace, service.UDP, true},
		{"the kernel, where a service asks for it on such a node", "web 10.100.0.5 mode=nftables", Userspace, service.TCP, false},
	} {
		s := services(tt.service)
		name := service.Name{Namespace: "default", Name: "web"}
		svc := s.Services[name]
		svc.Affinity, svc.Ports[0].Protocol = 3*time.Hour, tt.protocol
		s.Services[name] = svc
		d := Decide(s, portal.Options{}, tt.mode)
		if len(d.User.Portals)+len(d.Kernel.Portals) != 1 || (len(d.User.Portals) == 1) != tt.user || len(d.Problems) > 0 {
			t.Errorf("%s: %d for the proxy, %d for the kernel, problems %v", tt.name, len(d.User.Portals), len(d.Kernel.Portals), d.Problems)
		}
	}
}

// Services that come, go, change and move between the data planes: what a decider that saw all of it wants is what a fresh
// one wants, the changes it names lead there, and what it says is in force is what was when that was settled last.
func TestADeciderForgetsNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	d := newDecider(portal.Options{}, NFTables)
	told := service.Delta{}
	inForce := map[portal.Key]portal.Portal{}
	show := func(m map[portal.Key]portal.Portal) []string {
		var out []string
		for k, p := range m {
			out = append(out, fmt.Sprintf("%s %v", k, p))
		}
		slices.Sort(out)
		return out
	}
	for step := range 400 {
		var list []string
		for i := range r.IntN(5) {
			mode := [...]string{"", " mode=userspace", " mode=nftables"}[r.IntN(3)]
			list = append(list, fmt.Sprintf("s%d 10.100.0.%d%s", i, 1+r.IntN(4), mode))
		}
		now := services(list...)
		delta := now.Delta()
		for name := range told {
			if _, still := delta[name]; !still {
				delta[name] = nil
			}
		}
		told = now.Delta()
		before := [2]portal.Table{d.kernel, d.user}
		held := [2]map[portal.Key]portal.Portal{maps.Clone(d.kernel.Portals), maps.Clone(d.user.Portals)}
		if r.IntN(10) == 0 {
			d = d.moved(portal.Options{Node: node.Node{Name: fmt.Sprint("node", step)}})
		}
		d.update(delta)
		fresh := Decide(now, portal.Options{}, NFTables)
		for i, part := range []struct{ fresh, kept portal.Table }{{fresh.Kernel, d.kernel}, {fresh.User, d.user}} {
			if diff := cmp.Diff(show(part.fresh.Portals), show(part.kept.Portals)); diff != "" {
				t.Fatalf("step %d, part %d (-fresh +kept):\n%s", step, i, diff)
			}
			changed, known := part.kept.Since(before[i])
			for _, c := range changed {
				if delete(held[i], c.Key); c.Now != nil {
					held[i][c.Key] = *c.Now
				}
			}
			if diff := cmp.Diff(show(part.kept.Portals), show(held[i])); known && diff != "" {
				t.Fatalf("step %d, part %d: the changes lead elsewhere (-want +got):\n%s", step, i, diff)
			}
		}
		if diff := cmp.Diff(show(inForce), show(d.held())); diff != "" {
			t.Fatalf("step %d: in force (-want +got):\n%s", step, diff)
		}
		if r.IntN(2) == 0 {
			d.settled()
			inForce = d.held()
		}
	}
}

// Serving outsiders without knowing who is one is a problem, and one that ends.
func TestUnknownPodsAreAProblemOnceSomebodyOutsideIsServed(t *testing.T) {
	known := node.Node{Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}}
	name := service.Name{Namespace: "default", Name: "web"}
	for _, tt := range []struct {
		name string
		node node.Node
		lb   []netip.Addr
		want []error
	}{
		{"ClusterIPs do not ask", node.Node{Name: "kubminion1"}, nil, nil},
		{"a load balancer's address does", node.Node{Name: "kubminion1"}, []netip.Addr{netip.MustParseAddr("198.51.100.1")}, []error{errBlind}},
		{"but not where the pods are known", known, []netip.Addr{netip.MustParseAddr("198.51.100.1")}, nil},
	} {
		d := newDecider(portal.Options{Node: tt.node}, NFTables)
		s := services("web 10.100.0.5")
		svc := s.Services[name]
		svc.LoadBalancers = tt.lb
		s.Services[name] = svc
		d.update(s.Delta())
		w := d.want()
		if !slices.Equal(w.Problems, tt.want) {
			t.Errorf("%s: problems %v", tt.name, w.Problems)
		}
		d.update(service.Delta{name: nil})
		if w := d.want(); len(w.Problems) > 0 {
			t.Errorf("%s: when the service is gone: problems %v", tt.name, w.Problems)
		}
	}
}

func TestAServiceThatIsItsOwnEndpointIsAProblem(t *testing.T) {
	s := services("web 10.100.0.5")
	name := service.Name{Namespace: "default", Name: "web"}
	port := service.PortName{Name: name}
	s.Endpoints[port] = append(s.Endpoints[port], service.Endpoint{Addr: netip.MustParseAddrPort("10.100.0.5:8080"), Ready: true, Serving: true})
	d := Decide(s, portal.Options{}, NFTables)
	if len(d.Problems) != 1 || d.Problems[0].Error() != "service default/web: its endpoint 10.100.0.5:8080 is its own cluster address; not used" {
		t.Errorf("problems %v", d.Problems)
	}
}

// The text format knows three escapes; what Go quotes besides is a label of its own to Prometheus, or an error.
func TestLabelsAreWhatPrometheusReads(t *testing.T) {
	for value, want := range map[string]string{
		"default/web": "default/web", `a"b\c`: `a\"b\\c`, "a\nb": `a\nb`, "ü\t\x01": "ü\t\x01",
	} {
		if got := label(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

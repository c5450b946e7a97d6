// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// outside is a service with an address outside the portal net; endpoints are on the nodes that are named.
func outside(vip string, policy service.Policy, nodes ...string) service.Snapshot {
	s := services("web 10.100.0.5")
	for name, svc := range s.Services {
		svc.ExternalIPs, svc.ExternalPolicy = []netip.Addr{netip.MustParseAddr(vip)}, policy
		s.Services[name] = svc
		var eps []service.Endpoint
		for i, n := range nodes {
			eps = append(eps, service.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, 1, byte(i + 1)}), 8080), Node: n, Ready: true, Serving: true})
		}
		s.Endpoints[service.PortName{Name: name}] = eps
	}
	return s
}

func TestVIPsCountWhoAnswersOthers(t *testing.T) {
	r := newRig(NFTables, nil)
	for _, tt := range []struct {
		name string
		s    service.Snapshot
		want int
	}{
		{"policy Cluster: all of the cluster", outside("192.0.2.1", service.Cluster, "kubminion1", "kubminion2"), 2},
		{"policy Local: those of this node", outside("192.0.2.1", service.Local, "kubminion1", "kubminion2", "kubminion1"), 2},
		{"policy Local and none here", outside("192.0.2.1", service.Local, "kubminion2"), 0},
		{"nobody", outside("192.0.2.1", service.Cluster), 0},
	} {
		r.SetSnapshot(tt.s, nil)
		r.sync(t)
		got := r.VIPs(t.Context(), "")
		if diff := cmp.Diff([]VIP{{netip.MustParseAddr("192.0.2.1"), tt.want}}, got.VIPs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || !got.Synced {
			t.Errorf("%s: %+v (-want +got):\n%s", tt.name, got, diff)
		}
	}
}

func TestVIPsWaitForNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(NFTables, nil)
		first := r.VIPs(t.Context(), "")
		if first.Synced || first.State == "" {
			t.Errorf("before anything is known: %+v", first)
		}
		answers := make(chan VIPs, 1)
		ask := func(ctx context.Context, after string) { go func() { answers <- r.VIPs(ctx, after) }() }
		ask(t.Context(), first.State)
		synctest.Wait()
		if len(answers) != 0 {
			t.Fatal("answered without news")
		}
		r.SetSnapshot(outside("192.0.2.1", service.Cluster, "kubminion1"), nil)
		r.sync(t)
		second := <-answers
		if !second.Synced || len(second.VIPs) != 1 || second.VIPs[0].Ready != 1 {
			t.Errorf("programmed: %+v", second)
		}
		ask(t.Context(), second.State)
		r.kernel.fail = errors.New("no memory")
		r.SetSnapshot(outside("192.0.2.1", service.Cluster), nil)
		if err := r.Sync(t.Context()); err == nil {
			t.Fatal("want an error")
		}
		if third := <-answers; third.Synced || third.LastError == "" {
			t.Errorf("not programmed: %+v", third)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.VIPs(ctx, r.VIPs(t.Context(), "").State) // ends with ctx
	})
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// The kernel refuses what does not fit into a set: somebody has made ours too small. Everybody else is served all the same,
// and what was refused is served as soon as it can be.
func TestOneServiceThatTheKernelRefusesKeepsNobodyElseOut(t *testing.T) {
	h := nstest.New(t)
	nstest.Run(t, h, "nft", "add table ip l3edge; add map ip l3edge none { type ipv4_addr . inet_proto . inet_service : verdict; size 2; }")
	d := plane(t, h)
	m := portal.NewMemo(options())
	world := func(empty ...string) portal.Table {
		s := bulk(40, "0")
		for i, name := range empty {
			s.add(service.Service{ClusterIPs: addrs(fmt.Sprintf("10.100.9.%d", i+1)), Ports: tcp(80)}, name)
		}
		return m.Compute(service.Snapshot(s))
	}
	var bad portal.NotProgrammed
	err := d.Apply(t.Context(), world("a", "b", "c"))
	if !errors.As(err, &bad) || len(bad) != 1 || !strings.Contains(err.Error(), "the kernel refuses it") {
		t.Fatalf("got %v, want one service refused", err)
	}
	listing := nstest.Run(t, h, "nft", "list", "table", "ip", "l3edge")
	for i := range 40 {
		if !strings.Contains(listing, fmt.Sprintf("10.100.0.%d . tcp . 80 : goto n3", i+1)) {
			t.Errorf("service %d is not programmed", i)
		}
	}
	if n := strings.Count(listing, ": goto refuse"); n != 2 {
		t.Errorf("%d services without endpoints are programmed, want 2", n)
	}
	name := service.Name{Namespace: "default", Name: "s7"}
	st := *m.All()[name]
	st.Endpoints = nil
	if err := d.Apply(t.Context(), m.Update(service.Delta{name: &st})); !errors.As(err, &bad) || len(bad) != 2 {
		t.Errorf("with another one that does not fit: %v", err)
	}
	if err := d.Apply(t.Context(), world("a")); err != nil {
		t.Errorf("when all fit: %v", err)
	}
	holds(t, d, world("a"))
}

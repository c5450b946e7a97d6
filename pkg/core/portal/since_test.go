// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Services that come, go, change and fight for addresses: each Table is what a fresh Compute says, and the changes that Since
// names lead from one to the next.
func TestSinceNamesEveryKeyThatDiffers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	o := Options{Nets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}}
	m := NewMemo(o)
	draw := func() service.Snapshot {
		s := service.Snapshot{Services: map[service.Name]service.Service{}, Endpoints: map[service.PortName][]service.Endpoint{}}
		for i := range r.IntN(6) {
			name := service.Name{Namespace: "default", Name: fmt.Sprint("s", i)}
			vip := netip.AddrFrom4([4]byte{10, byte(100 + r.IntN(2)), 0, byte(r.IntN(4))})
			s.Services[name] = service.Service{Name: name, ClusterIPs: []netip.Addr{vip}, Ports: []service.Port{{Protocol: service.TCP, Port: 80}}}
			s.Endpoints[service.PortName{Name: name}] = []service.Endpoint{
				{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, 10, byte(r.IntN(3))}), 8080), Ready: true, Serving: true},
			}
		}
		return s
	}
	old, oldest := m.Compute(service.Snapshot{}), Table{}
	kept := map[Key]Portal{} // what following the changes leads to
	for i := range 300 {
		s := draw()
		now := m.Compute(s)
		if d := cmp.Diff(Compute(s, o), now, cmpopts.IgnoreUnexported(Table{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); d != "" {
			t.Fatalf("step %d (-fresh +memo):\n%s", i, d)
		}
		changed, known := now.Since(old)
		if !known {
			t.Fatalf("step %d: not known", i)
		}
		named := map[Key]bool{}
		for _, c := range changed {
			if named[c.Key] {
				t.Errorf("step %d: %s is named twice", i, c.Key)
			}
			named[c.Key] = true
			was, had := kept[c.Key]
			if had != (c.Was != nil) || had && !was.Equal(*c.Was) {
				t.Errorf("step %d: %s was %v, it says %v", i, c.Key, was, c.Was)
			}
			if delete(kept, c.Key); c.Now != nil {
				kept[c.Key] = *c.Now
			}
		}
		if d := cmp.Diff(kept, now.Portals, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); d != "" {
			t.Fatalf("step %d: the changes lead elsewhere (-changes +table):\n%s", i, d)
		}
		if _, known := now.Since(oldest); known && now.step.n > oldest.step.n+1 {
			t.Errorf("step %d: known since two steps ago", i)
		}
		oldest = old
		old = now
	}
	if _, known := Compute(draw(), o).Since(old); known {
		t.Error("known of another memo's table")
	}
}

func TestPortalsLieInTheirMap(t *testing.T) {
	if n := unsafe.Sizeof(Portal{}); n > 128 {
		t.Errorf("a Portal has %d bytes: each copy of a map of them allocates one by one", n)
	}
}

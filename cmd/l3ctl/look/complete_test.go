// SPDX-License-Identifier: Apache-2.0

package look

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/view"
)

func TestWhatTheShellIsOffered(t *testing.T) {
	a := netip.MustParseAddr
	h := view.Host{
		Pods: []view.Pod{
			{Name: "default/web", Alive: true, Addrs: []netip.Addr{a("10.10.10.2")}}, {Name: "other/db", Alive: true}, {Name: "default/gone"},
		},
		Portald: view.Portald{Portals: []view.Portal{{VIP: a("10.100.0.2"), Service: "default/kubernetes", PortName: "https"}}},
		Links:   []view.Link{{Name: "ens18", Addrs: []netip.Prefix{netip.MustParsePrefix("10.20.30.62/24")}}},
		Leases:  []view.Lease{{Addr: a("10.10.10.9")}},
	}
	for name, row := range map[string]struct{ got, want []string }{
		"pods":      {Pods(h), []string{"web", "other/db"}},
		"ends":      {Ends(h), []string{"web", "other/db", "here", "kubernetes:https"}},
		"addresses": {Addresses(h), []string{"10.10.10.2", "10.100.0.2", "10.20.30.62"}},
		"leased":    {Leased(h), []string{"10.10.10.9"}},
	} {
		if !slices.Equal(row.got, row.want) {
			t.Errorf("%s: %q, want %q", name, row.got, row.want)
		}
	}
}

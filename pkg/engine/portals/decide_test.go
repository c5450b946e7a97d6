// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

func TestSessionAffinityIsNeverLostInSilence(t *testing.T) {
	for _, tt := range []struct {
		name, service string
		mode          Mode
		protocol      service.Protocol
		user          bool
		problem       string
	}{
		{"the proxy answers what the kernel would forget", "web 10.100.0.5", NFTables, service.TCP, true, ""},
		{"also over UDP", "web 10.100.0.5", NFTables, service.UDP, true, ""},
		{"a service that asks for the kernel gets it, and is told", "web 10.100.0.5 mode=nftables", NFTables, service.TCP, false,
			"TCP 10.100.0.5:80 of default/web: sessionAffinity ClientIP is not kept: nftables mode cannot, and the service asks for it"},
		{"also on a node of the other mode", "web 10.100.0.5 mode=nftables", Userspace, service.TCP, false,
			"TCP 10.100.0.5:80 of default/web: sessionAffinity ClientIP is not kept: nftables mode cannot, and the service asks for it"},
		{"SCTP is answered all the same", "web 10.100.0.5", NFTables, service.SCTP, false,
			"SCTP 10.100.0.5:80 of default/web: sessionAffinity ClientIP is not kept: nftables mode cannot, and userspace mode cannot carry the protocol"},
	} {
		s := services(tt.service, "plain 10.100.0.6")
		name := service.Name{Namespace: "default", Name: "web"}
		svc := s.Services[name]
		svc.Affinity, svc.Ports[0].Protocol = 3*time.Hour, tt.protocol
		s.Services[name] = svc
		d := Decide(s, portal.Compute(s, portal.Options{}), tt.mode)
		key := portal.Key{Addr: svc.ClusterIPs[0], Protocol: tt.protocol, Port: 80}
		_, user := d.User.Portals[key]
		_, kernel := d.Kernel.Portals[key]
		if user != tt.user || kernel == tt.user {
			t.Errorf("%s: for the proxy %v, for the kernel %v", tt.name, user, kernel)
		}
		var problems []string
		for _, p := range d.Problems {
			problems = append(problems, p.Error())
		}
		var want []string
		if tt.problem != "" {
			want = []string{tt.problem}
		}
		if d := cmp.Diff(want, problems); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
		if n := len(d.Kernel.Portals) + len(d.User.Portals); n != 2 {
			t.Errorf("%s: %d portals are answered, want 2", tt.name, n)
		}
	}
}

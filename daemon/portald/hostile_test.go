// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// One tenant's Service may be as strange as it likes: the others are served, a change of theirs is in force at once, and
// what is wrong is said.
func TestAHostileServiceDoesNoHarmToOthers(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	var ports strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&ports, "  - {name: p%d, port: %d}\n", i, i+1)
	}
	hostile := func(name, meta, spec string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n%sspec:\n  clusterIP: 10.100.66.1\n%s", name, meta, spec)
	}
	for _, tt := range []struct{ name, text, problem string }{
		{"ten thousand ports", hostile("many", "", "  ports:\n"+ports.String()), ""},
		{"a name to break out of a comment", hostile(`'"; flush ruleset; # \"'`, "", "  ports: [{port: 80}]\n"), "is not a DNS label"},
		{"a name that never ends", hostile(long, "", "  ports: [{port: 80}]\n"), "metadata.name: 200000 bytes"},
		{"annotations that never end", hostile("a", "  annotations:\n    l3edge.dev/balance: "+long+"\n    other.example/x: "+long+"\n", "  ports: [{port: 80}]\n"), "l3edge.dev/balance"},
		{"an annotation that is a number", hostile("b", "  annotations: {l3edge.dev/max-connections: -5}\n", "  ports: [{port: 80}]\n"), "max-connections"},
		{"somebody else's VIP", hostile("c", "", "  externalIPs: [10.100.87.105]\n  ports: [{port: 80}]\n"), "ClusterIP of default/webfrontend"},
		{"a pod's address", hostile("d", "", "  externalIPs: [10.10.10.3]\n  ports: [{port: 80}]\n"), "an address of this node's pods"},
		{"an affinity of a thousand years", hostile("e", "", "  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 2147483647}}\n  ports: [{port: 80}]\n"), "timeoutSeconds"},
		{"a hundred thousand endpoints of its own", hostile("f", "", "  ports: [{port: 80}]\n") + crowd("f", 100_000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.pod(w.other, "far", "10.10.20.4:8080")
			w.pod(w.near, "near", "10.10.10.3:8080")
			w.write("web.yaml", webfrontend("10.10.20.4"))
			w.write("web2.yaml", tt.text)
			p := w.start()
			r := p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) >= 1 })
			if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
				t.Errorf("at first: %q", got)
			}
			if all := strings.Join(r.Problems, "\n"); !strings.Contains(all, tt.problem) || len(all) > 10_000 {
				t.Errorf("problems, %d bytes: %.1000s", len(all), all)
			}
			began := time.Now()
			w.write("web.yaml", webfrontend("10.10.10.3"))
			eventually(t, "the change", func() bool { return w.curl(w.client, vip) == "near saw 10.10.10.2" })
			t.Logf("a change of another service: %s", time.Since(began).Round(time.Millisecond))
			p.stop()
		})
	}
}

// crowd is one EndpointSlice with n endpoints.
func crowd(name string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: %s-1\n  labels: {kubernetes.io/service-name: %s}\naddressType: IPv4\nports:\n- port: 80\nendpoints:\n", name, name)
	for i := range n {
		fmt.Fprintf(&b, "- addresses: [10.%d.%d.%d]\n", 128+i/50000, i/250%200, i%250+1)
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// talk opens a UDP flow that goes on from the same port, and returns what asks over it once.
func talk(t *testing.T, from *netns.Handle, at string) func() string {
	t.Helper()
	var c net.Conn
	nstest.Do(t, from, func() (err error) { c, err = net.Dial("udp", at); return err })
	t.Cleanup(func() { c.Close() })
	return func() string {
		_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = c.Write([]byte("?"))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil && !strings.Contains(err.Error(), "refused") { // once more: an earlier refusal may have been waiting
			return err.Error()
		}
		return string(buf[:n])
	}
}

// TestFlowsFindTheNewPod: clients that never stop talking reach who has the port now, and others are left alone.
func TestFlowsFindTheNewPod(t *testing.T) {
	var many strings.Builder // so that the flows are read once for all of them
	for i := range fewPorts {
		fmt.Fprintf(&many, `,{"hostPort":%d,"containerPort":53,"protocol":"udp"}`, 10000+i)
	}
	for _, tt := range []struct{ name, family, node, source, passed, rest string }{
		{"IPv4, any address", "ipv4", "10.20.30.62", "10.20.30.1", "10.10.10.3", ""},
		{"IPv4, one address", "ipv4", "10.20.30.62", "10.20.30.1", "10.10.10.3", `,"hostIP":"10.20.30.62"`},
		{"IPv6, any address", "ipv6", "fd00:20::62", "fd00:20::1", "fd00:10::3", ""},
		{"IPv6, one address", "ipv6", "fd00:20::62", "fd00:20::1", "fd00:10::3", `,"hostIP":"fd00:20::62"`},
		{"IPv4, any address, many ports", "ipv4", "10.20.30.62", "10.20.30.1", "10.10.10.3", "}" + many.String()},
		{"IPv4, one address, many ports", "ipv4", "10.20.30.62", "10.20.30.1", "10.10.10.3", `,"hostIP":"10.20.30.62"}` + many.String()},
		{"IPv6, one address, many ports", "ipv6", "fd00:20::62", "fd00:20::1", "fd00:10::3", `,"hostIP":"fd00:20::62"}` + many.String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			dualStack(w)
			both := func(pod string) string { return with6(pod, addrs[pod]+"/24", addrs6[pod]+"/64") }
			dns := ports(`{"hostPort":53,"containerPort":53,"protocol":"UDP"` + strings.TrimSuffix(tt.rest, "}") + `}`)
			w.must("ADD", "other/tcp", ports(`{"hostPort":8080,"containerPort":80}`)+both("other")) // from here on the kernel remembers flows
			client, passer := talk(t, w.out, net.JoinHostPort(tt.node, "53")), talk(t, w.out, net.JoinHostPort(tt.passed, "53"))
			client() // nobody there: refused
			if got := passer(); got != "other "+tt.source {
				t.Fatalf("a flow to a pod's own address: %q", got)
			}
			flows := func(to string) (out []string) {
				for line := range strings.Lines(nstest.Sh(t, w.node, "conntrack -L -p udp -o id -f "+tt.family+" 2>/dev/null")) {
					f := strings.Fields(line)
					if i := slices.IndexFunc(f, func(s string) bool { return strings.HasPrefix(s, "dst=") }); i >= 0 && f[i] == "dst="+to {
						out = append(out, f[len(f)-1]) // its number: a flow that was forgotten and came again has another
					}
				}
				return out
			}
			before := flows(tt.passed)
			if len(flows(tt.node)) != 1 || len(before) != 1 {
				t.Fatalf("the kernel does not remember the two flows: %q and %q", flows(tt.node), before)
			}
			for _, step := range []struct{ what, verb, pod, config, want string }{
				{"a client from before the ADD", "ADD", "web", dns + both("web"), "web " + tt.source},
				{"after a repeated ADD", "ADD", "web", dns + both("web"), "web " + tt.source},
				{"after DEL", "DEL", "web", "", ""},
				{"after the port went to another pod", "ADD", "other", dns + both("other"), "other " + tt.source},
			} {
				w.must(step.verb, step.pod, step.config)
				if step.verb == "DEL" {
					if left := flows(tt.node); len(left) > 0 {
						t.Errorf("DEL left the flow %s", left)
					}
				} else if got := client(); got != step.want {
					t.Errorf("%s: %q, want %q", step.what, got, step.want)
				}
			}
			if after := flows(tt.passed); !slices.Equal(after, before) {
				t.Errorf("a flow to the same port of a pod's own address was %q, is %q: it was nobody's to end", before, after)
			}
		})
	}
}

// TestNobodyWaitsForTheKernel: it frees what DEL took away in its own time, some ten milliseconds, which a child process
// sits out; nor does an ADD wait that comes at once after a DEL, or is repeated.
func TestNobodyWaitsForTheKernel(t *testing.T) {
	w := newWorld(t)
	fastest := map[string]time.Duration{}
	run := func(what, verb, config string) {
		start := time.Now()
		w.must(verb, "web", config+withPrev("web"))
		if d := time.Since(start); fastest[what] == 0 || d < fastest[what] {
			fastest[what] = d
		}
	}
	for range 10 {
		config := ports(`{"hostPort":80,"containerPort":80}`)
		run("nothing", "ADD", "")
		run("ADD", "ADD", config)
		run("repeated ADD", "ADD", config)
		run("DEL", "DEL", config)
		run("ADD at once after DEL", "ADD", config)
		w.must("DEL", "web", "")
		if rules := nstest.Sh(t, w.node, "nft list ruleset"); strings.Contains(rules, addrs["web"]) {
			t.Fatalf("DEL returned with the port still there:\n%s", rules)
		}
	}
	for what, d := range fastest {
		if most := fastest["nothing"] + 5*time.Millisecond; d > most {
			t.Errorf("the fastest %s took %s, want at most %s: five milliseconds more than one that does nothing", what, d, most)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"os/exec"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestPulseBeatsWhenLegacyRulesChange(t *testing.T) {
	for _, name := range []string{"iptables-legacy", "ip6tables-legacy"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed: test/need.sh test", name)
		}
		h := nstest.New(t)
		feelIt := func() (p Pulse) {
			nstest.Do(t, h, func() error { p = Feel(); return nil })
			return p
		}
		if got := feelIt(); got != (Pulse{}) {
			t.Fatalf("a pulse without a table: %v", got)
		}
		before := feelIt()
		for _, do := range []string{"-N KUBE-PORTALS-HOST", "-A OUTPUT -j KUBE-PORTALS-HOST", "-D OUTPUT 1", "-F", "-X"} {
			nstest.Sh(t, h, name+" -w 5 -t nat "+do)
			now := feelIt()
			if do != "-F" && now == before {
				t.Errorf("%s %s: nothing felt", name, do)
			}
			if again := feelIt(); again != now {
				t.Errorf("%s %s: %v, then %v", name, do, now, again)
			}
			before = now
		}
	}
}

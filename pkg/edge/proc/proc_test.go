// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/view"
)

func TestFillFindsWhoSharesANamespace(t *testing.T) {
	pods := []view.Pod{{Name: "here", Alive: true, Netns: "/proc/self/ns/net"}, {Name: "gone", Netns: "/run/netns/none"}}
	if err := Fill(pods); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(pods[0].Processes, func(p view.Process) bool { return p.Pid == os.Getpid() && p.Name == "proc.test" }) {
		t.Errorf("this process is not among %s", fmt.Sprint(pods[0].Processes))
	}
	if len(pods[1].Processes) > 0 {
		t.Errorf("a dead pod has processes: %v", pods[1].Processes)
	}
}

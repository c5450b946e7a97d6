// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestRemoveAllSparesWhatIsNotOurs(t *testing.T) {
	h := nstest.New(t)
	nstest.Do(t, h, RemoveAll) // nothing there: no error
	for _, table := range []string{"ip l3edge", "ip6 l3edge", "ip l3edge_hostports", "bridge l3edge_pods", "ip theirs", "bridge l3edge", "inet l3edge"} {
		nstest.Run(t, h, "sh", "-c", "nft add table "+table)
	}
	nstest.Do(t, h, RemoveAll)
	if got, want := nstest.Run(t, h, "nft", "list", "tables"), "table ip theirs\ntable bridge l3edge\ntable inet l3edge\n"; got != want {
		t.Errorf("left:\n%swant:\n%s", got, want)
	}
}

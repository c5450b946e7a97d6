// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestTables(t *testing.T) {
	h := nstest.New(t)
	nstest.Sh(t, h, "nft 'add table ip6 l3edge; add table ip l3edge; add table ip other; add table bridge l3edge_pods'")
	nstest.Do(t, h, func() error {
		got, err := Tables()
		if want := []string{"bridge l3edge_pods", "ip l3edge", "ip6 l3edge"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return err
	})
}

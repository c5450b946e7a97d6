// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestRemoveBridge(t *testing.T) {
	h := nstest.New(t)
	nstest.Run(t, h, "sh", "-c", "ip link add empty type bridge; ip link add used type bridge; ip link add v0 type veth peer v1; ip link set v0 master used")
	for name, want := range map[string]bool{"empty": true, "used": false, "v1": false, "none": false} {
		nstest.Do(t, h, func() error {
			got, err := RemoveBridge(name)
			if got != want {
				t.Errorf("%s: removed %v, want %v", name, got, want)
			}
			return err
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"testing"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestAcceptChannel(t *testing.T) {
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nstest.Run(t, h, "ip", "link", "set", "lo", "up")
	srv := server.NewBgpServer()
	go srv.Serve()
	defer srv.Stop()
	err = srv.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{Asn: 1, RouterId: "10.0.0.1", ListenPort: 1790, ListenAddresses: []string{"127.0.0.9"}}})
	if err != nil {
		t.Fatal(err)
	}
	if acceptChannel(srv) == nil {
		t.Error("gobgp keeps its accepted connections elsewhere now: see HandIn")
	}
}

// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"testing"
	"time"

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

func TestStopBFD(t *testing.T) {
	srv := server.NewBgpServer()
	go srv.Serve()
	defer srv.Stop()
	err := srv.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{Asn: 1, RouterId: "10.0.0.1", ListenPort: -1}})
	if err != nil {
		t.Fatal(err)
	}
	err = srv.AddPeer(t.Context(), &api.AddPeerRequest{Peer: &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: "127.0.0.7", PeerAsn: 2}, Bfd: &api.BfdPeerConfig{Enabled: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for there, end := false, time.Now().Add(5*time.Second); !there; time.Sleep(time.Millisecond) {
		srv.ListBfdPeer(t.Context(), func(string, *api.BfdPeerState) { there = true })
		if time.Now().After(end) {
			t.Fatal("no BFD session")
		}
	}
	all := StopBFD(srv)
	if len(all) != 1 || all[0].Peer.String() != "127.0.0.7" || all[0].Mine == 0 || all[0].Theirs != 0 {
		t.Errorf("%+v", all)
	}
}

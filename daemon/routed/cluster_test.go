// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// apiServer holds one Node. The real one has its tests in test/kube.
type apiServer struct {
	*httptest.Server

	mu      sync.Mutex
	version int
	node    string // the object
	changed chan struct{}
	said    []string // bodies of what was written
}

// newAPIServer serves on the host's loopback and returns the kubeconfig too.
func newAPIServer(t *testing.T, h *host) (*apiServer, string) {
	t.Helper()
	s := &apiServer{changed: make(chan struct{})}
	s.Server = httptest.NewUnstartedServer(s)
	nstest.Do(t, h.Handle, func() (err error) {
		_ = s.Listener.Close()
		s.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	path := h.dir + "/kubeconfig"
	write(t, path, fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x"}}],
		"clusters":[{"name":"x","cluster":{"server":%q}}]}`, s.URL))
	return s, path
}

func (s *apiServer) set(name, metadata, spec string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.node = fmt.Sprintf(`{"kind":"Node","apiVersion":"v1","metadata":{"name":%q,"resourceVersion":"%d"%s},"spec":{%s}}`, name, s.version, metadata, spec)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	version, node, changed := s.version, s.node, s.changed
	s.mu.Unlock()
	q := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.said = append(s.said, string(body))
		s.mu.Unlock()
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	case q.Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case q.Get("watch") == "":
		fmt.Fprintf(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[%s]}`, version, node)
	default:
		w.(http.Flusher).Flush()
		for from := q.Get("resourceVersion"); ; {
			if now := fmt.Sprint(version); now != from {
				from = now
				fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`+"\n", node)
				w.(http.Flusher).Flush()
			}
			select {
			case <-r.Context().Done():
				return
			case <-changed:
			}
			s.mu.Lock()
			version, node, changed = s.version, s.node, s.changed
			s.mu.Unlock()
		}
	}
}

func (s *apiServer) heard(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.said, "\n"), text)
}

// A node of a cluster: its pod subnet and zone come from the API server, a restart does without the server, a label takes
// service addresses off it, and the cluster is told.
func TestNodeOfACluster(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	n := l.n1
	api, kubeconfig := newAPIServer(t, n)
	api.set(n.name, `,"labels":{"topology.kubernetes.io/zone":"east"}`, "")
	var text atomic.Value
	text.Store(`{"synced":true,"portalNets":[],"vips":[{"vip":"203.0.113.7","ready":2}]}`)
	socket := n.dir + "/portald.sock"
	defer fakePortald(t, socket, &text)()
	args := []string{"--peer=10.20.30.1", "--kubeconfig=" + kubeconfig, "--on-stop=keep", "--announce-vips", "--portald-socket=" + socket}
	n.routed(t, args...)
	within(t, promised, "it waits for a pod subnet", func() bool {
		return strings.Contains(n.output(), "the cluster has given node kubminion1 none")
	})
	if n.status(t).Waiting == "" {
		t.Error("status does not say that it waits")
	}
	api.set(n.name, `,"labels":{"topology.kubernetes.io/zone":"east"}`, `"podCIDRs":["10.10.10.0/24"]`)
	within(t, promised, "the pod subnet at the switch", func() bool { return l.mls.has(t, "10.10.10.0/24 via 10.20.30.62") })
	facts, err := nodefile.Read(n.dir + "/node.json")
	if err != nil || facts.Zone != "east" || len(facts.PodSubnets) != 1 {
		t.Errorf("node file: %+v, %v", facts, err)
	}
	within(t, 10*time.Second, "the cluster is told", func() bool {
		return api.heard(`"NetworkUnavailable"`) && api.heard(`"l3edge.dev/BGP"`) && api.heard("10.20.30.1 (AS 64512)")
	})

	leaving := func() string {
		for _, a := range n.status(t).Announced {
			if a.Prefix.String() == "203.0.113.7/32" {
				return fmt.Sprint("leaving ", a.Leaving)
			}
		}
		return "not announced"
	}
	within(t, promised, "the service address", func() bool { return leaving() == "leaving false" })
	api.set(n.name, `,"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":""}`, `"podCIDRs":["10.10.10.0/24"]`)
	within(t, promised, "the service address leaves", func() bool { return leaving() == "leaving true" })
	api.set(n.name, "", `"podCIDRs":["10.10.10.0/24"],"unschedulable":true`) // without --drain-on-cordon
	within(t, promised, "the service address comes back", func() bool { return leaving() == "leaving false" })

	// A restart, the server being gone, costs nothing.
	n.signal(t, syscall.SIGTERM)
	api.Close()
	n.routed(t, args...)
	within(t, patience+promised, "the successor", func() bool {
		st := n.status(t)
		return len(st.Sessions) == 1 && st.Sessions[0].State == bgp.Established && st.Sessions[0].Out > 0
	})
	if !strings.Contains(n.output(), "going on with what it said last") || !l.mls.has(t, "10.10.10.0/24 via 10.20.30.62") {
		t.Errorf("without the API server: %s", l.mls.routes(t))
	}
}

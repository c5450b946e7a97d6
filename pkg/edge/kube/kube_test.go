// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// apiServer lists and watches as an old API server does, in JSON. The real one has its tests in test/kube.
type apiServer struct {
	*httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]map[string]json.RawMessage // by path, then by name
	watches map[string][]chan string
	history map[string][]past
	down    bool
	forgets bool              // the next watch is answered with 410 Gone
	written map[string]string // bodies of POST and PATCH, by path
}

// past is an event that a watch may have to begin with.
type past struct {
	version int
	event   string
}

const (
	services = "/api/v1/services"
	epSlices = "/apis/discovery.k8s.io/v1/endpointslices"
	nodes    = "/api/v1/nodes"
	cidrs    = "/apis/networking.k8s.io/v1/servicecidrs"
)

var kinds = map[string][2]string{
	services: {"v1", "Service"}, nodes: {"v1", "Node"},
	epSlices: {"discovery.k8s.io/v1", "EndpointSlice"}, cidrs: {"networking.k8s.io/v1", "ServiceCIDR"},
}

func serve(t *testing.T) (*apiServer, *Client) {
	t.Helper()
	s := &apiServer{version: 1, objects: map[string]map[string]json.RawMessage{}, watches: map[string][]chan string{}, history: map[string][]past{}, written: map[string]string{}}
	for path := range kinds {
		s.objects[path] = map[string]json.RawMessage{}
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x"}}],
		"clusters":[{"name":"x","cluster":{"server":%q}}]}`, s.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Access{Kubeconfig: path, retry: &wait.Backoff{Duration: 5 * time.Millisecond, Steps: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method != http.MethodGet {
		body, _ := io.ReadAll(r.Body)
		s.written[r.Method+" "+r.URL.Path] = string(body)
		s.mu.Unlock()
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
		return
	}
	q := r.URL.Query()
	if q.Get("sendInitialEvents") != "" {
		s.mu.Unlock()
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		return
	}
	k := kinds[r.URL.Path]
	if q.Get("watch") == "" {
		defer s.mu.Unlock()
		var items []string
		for name, o := range s.objects[r.URL.Path] {
			if f := q.Get("fieldSelector"); f == "" || f == "metadata.name="+name {
				items = append(items, string(o))
			}
		}
		fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"%d"},"items":[%s]}`, k[1], k[0], s.version, strings.Join(items, ","))
		return
	}
	if s.forgets {
		s.forgets = false
		s.mu.Unlock()
		w.WriteHeader(http.StatusGone)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`)
		return
	}
	ch := make(chan string, 1000)
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	for _, e := range s.history[r.URL.Path] {
		if e.version > from {
			ch <- e.event
		}
	}
	s.watches[r.URL.Path] = append(s.watches[r.URL.Path], ch)
	s.mu.Unlock()
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-ch:
			if !ok {
				return
			}
			fmt.Fprintln(w, e)
			w.(http.Flusher).Flush()
		}
	}
}

func (s *apiServer) put(t *testing.T, path string, o metav1.Object) {
	t.Helper()
	s.change(t, path, o, false)
}

func (s *apiServer) change(t *testing.T, path string, o metav1.Object, gone bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	k := kinds[path]
	b = append([]byte(fmt.Sprintf(`{"apiVersion":%q,"kind":%q,`, k[0], k[1])), b[1:]...)
	event := "ADDED"
	if _, had := s.objects[path][o.GetName()]; had {
		event = "MODIFIED"
	}
	if s.objects[path][o.GetName()] = b; gone {
		event = "DELETED"
		delete(s.objects[path], o.GetName())
	}
	e := fmt.Sprintf(`{"type":%q,"object":%s}`, event, b)
	s.history[path] = append(s.history[path], past{s.version, e})
	for _, ch := range s.watches[path] {
		ch <- e
	}
}

// fail stops answering, or begins again; watches end.
func (s *apiServer) fail(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.cut()
}

func (s *apiServer) cut() {
	for path, list := range s.watches {
		for _, ch := range list {
			close(ch)
		}
		s.watches[path] = nil
	}
}

func web(cluster string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: v1.ServiceSpec{ClusterIP: cluster, Ports: []v1.ServicePort{{Port: 80}}}}
}

func slice(addrs ...string) *discovery.EndpointSlice {
	port, name := int32(8080), ""
	o := &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web-1", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4, Ports: []discovery.EndpointPort{{Port: &port, Name: &name}},
	}
	for _, a := range addrs {
		o.Endpoints = append(o.Endpoints, discovery.Endpoint{Addresses: []string{a}})
	}
	return o
}

// heard gathers what Services emits.
type heard struct {
	mu       sync.Mutex
	state    service.Delta
	emits    int
	problem  string
	troubles []string
}

func listen(t *testing.T, c *Client) *heard {
	t.Helper()
	h := &heard{state: service.Delta{}}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() {
		done <- c.Services(ctx, func(d service.Delta, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.state.Merge(d)
			h.emits++
			h.problem = fmt.Sprint(err)
		}, func(err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.troubles = append(h.troubles, fmt.Sprint(err))
		})
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("Services: %v", err)
		}
	})
	return h
}

// text is what is known: "shop/web 10.100.0.5 10.10.10.2:8080", or nothing.
func (h *heard) text() string {
	var out []string
	for name, st := range h.state {
		if st == nil {
			continue
		}
		line := fmt.Sprint(name, " ", st.Service.ClusterIPs)
		for _, e := range st.Of(0) {
			line += " " + e.Addr.String()
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func (h *heard) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		h.mu.Lock()
		good := ok()
		text := fmt.Sprintf("%q, problem %s, trouble %v", h.text(), h.problem, h.troubles)
		h.mu.Unlock()
		if good {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: still %s", what, text)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

const full = "shop/web [10.100.0.5] 10.10.10.2:8080"

func TestServicesFollowsTheServer(t *testing.T) {
	s, c := serve(t)
	s.put(t, services, web("10.100.0.5"))
	s.put(t, epSlices, slice("10.10.10.2"))
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.text() == full })
	if h.emits != 1 {
		t.Errorf("%d emits until then: the first must hold everything", h.emits)
	}
	s.put(t, epSlices, slice("10.10.10.2", "10.10.20.2"))
	h.await(t, "a new endpoint", func() bool { return h.text() == full+" 10.10.20.2:8080" })
	s.change(t, epSlices, slice(), true)
	h.await(t, "no slice", func() bool { return h.text() == "shop/web [10.100.0.5]" })
	s.change(t, services, web("10.100.0.5"), true)
	h.await(t, "no service", func() bool { return h.text() == "" })
}

func TestAClusterWithoutServicesIsKnownToo(t *testing.T) {
	_, c := serve(t)
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.emits == 1 })
}

func TestNothingIsLostWhileTheServerIsAway(t *testing.T) {
	s, c := serve(t)
	s.put(t, services, web("10.100.0.5"))
	s.put(t, epSlices, slice("10.10.10.2"))
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.text() == full })
	s.fail(true)
	h.await(t, "trouble", func() bool { return len(h.troubles) == 1 })
	if h.text() != full || !strings.HasPrefix(h.troubles[0], "kubernetes: ") {
		t.Errorf("%q, %v", h.text(), h.troubles)
	}
	s.put(t, epSlices, slice("10.10.30.2")) // while nobody watches
	s.fail(false)
	h.await(t, "what changed meanwhile", func() bool { return h.text() == "shop/web [10.100.0.5] 10.10.30.2:8080" })
	h.await(t, "the end of trouble", func() bool { return len(h.troubles) == 2 && h.troubles[1] == "<nil>" })
}

func TestAServerThatIsAwayAtStart(t *testing.T) {
	s, c := serve(t)
	s.fail(true)
	h := listen(t, c)
	h.await(t, "trouble", func() bool { return len(h.troubles) == 1 })
	if h.emits > 0 {
		t.Error("something was emitted before everything is known")
	}
	s.put(t, services, web("10.100.0.5"))
	s.fail(false)
	h.await(t, "the first list", func() bool { return h.text() == "shop/web [10.100.0.5]" })
}

// The server may have forgotten where a watch should go on: the list that follows shows also what went meanwhile, and
// nobody is troubled.
func TestWatchThatExpired(t *testing.T) {
	s, c := serve(t)
	s.put(t, services, web("10.100.0.5"))
	s.put(t, epSlices, slice("10.10.10.2"))
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.text() == full })
	s.mu.Lock()
	s.forgets = true
	delete(s.objects[services], "web")
	s.cut()
	s.mu.Unlock()
	s.put(t, epSlices, slice())
	h.await(t, "a service that went unseen", func() bool { return h.text() == "" })
	if len(h.troubles) > 0 {
		t.Errorf("trouble: %v", h.troubles)
	}
}

func TestObjectThatCannotBeUnderstood(t *testing.T) {
	s, c := serve(t)
	s.put(t, services, web("10.100.0.5"))
	s.put(t, epSlices, slice("10.10.10.2"))
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.text() == full })
	s.put(t, services, web("10.100"))
	h.await(t, "a report", func() bool {
		return h.problem == `Service shop/web: spec.clusterIP: "10.100" is not an address`
	})
	if h.text() != full {
		t.Errorf("what was right is no longer in force: %q", h.text())
	}
	s.put(t, services, web("10.100.0.6"))
	h.await(t, "mended", func() bool {
		return h.problem == "<nil>" && h.text() == strings.Replace(full, "0.5", "0.6", 1)
	})
}

func TestNode(t *testing.T) {
	s, c := serve(t)
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "kubminion1"}}
	s.put(t, nodes, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v1.NodeSpec{PodCIDR: "10.10.20.0/24"}})
	s.put(t, nodes, node)
	got := make(chan kubeobj.Member, 10)
	done := make(chan error, 1)
	ctx := t.Context()
	go func() {
		done <- c.Node(ctx, "kubminion1", func(m kubeobj.Member, _ error) { got <- m }, func(error) {})
	}()
	if m := <-got; m.Name != "kubminion1" || len(m.PodSubnets) > 0 {
		t.Errorf("at first: %+v", m)
	}
	node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady}} // no news
	s.put(t, nodes, node)
	node.Spec.PodCIDRs = []string{"10.10.10.0/24"}
	s.put(t, nodes, node)
	if m := <-got; len(m.PodSubnets) != 1 || m.PodSubnets[0] != netip.MustParsePrefix("10.10.10.0/24") {
		t.Errorf("with a pod subnet: %+v", m)
	}
}

func TestServiceNets(t *testing.T) {
	s, c := serve(t)
	s.put(t, cidrs, &networking.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networking.ServiceCIDRSpec{CIDRs: []string{"10.100.0.0/16", "fd00::/108"}}})
	got := make(chan string, 10)
	ctx := t.Context()
	go func() { _ = c.ServiceNets(ctx, func(p []netip.Prefix) { got <- fmt.Sprint(p) }, func(error) {}) }()
	if n := <-got; n != "[10.100.0.0/16 fd00::/108]" {
		t.Error(n)
	}
	more := &networking.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networking.ServiceCIDRSpec{CIDRs: []string{"10.101.0.0/16"}}}
	s.put(t, cidrs, more)
	if n := <-got; n != "[10.100.0.0/16 10.101.0.0/16 fd00::/108]" {
		t.Error(n)
	}
	s.change(t, cidrs, more, true)
	if n := <-got; n != "[10.100.0.0/16 fd00::/108]" {
		t.Error(n)
	}
}

func TestWhatIsToldToTheCluster(t *testing.T) {
	s, c := serve(t)
	if err := c.SetConditions(t.Context(), "kubminion1", Condition{Type: "NetworkUnavailable", Reason: "L3EdgeIsUp", Message: "pod subnet announced"}); err != nil {
		t.Error(err)
	}
	if err := c.Event(t.Context(), "kubminion1", Object{Kind: "Service", Namespace: "shop", Name: "web"}, true, "Withdrawn", "no endpoint is ready"); err != nil {
		t.Error(err)
	}
	if b := s.written["PATCH /api/v1/nodes/kubminion1/status"]; !strings.Contains(b, `"NetworkUnavailable"`) || !strings.Contains(b, `"status":"False"`) {
		t.Errorf("patch: %s", b)
	}
	if _, ok := s.written["POST /api/v1/namespaces/shop/events"]; !ok {
		t.Errorf("no event: %v", s.written)
	}
	s.fail(true)
	if err := c.SetConditions(t.Context(), "kubminion1"); err == nil || !strings.HasPrefix(err.Error(), "kubernetes: set conditions of node kubminion1: ") {
		t.Errorf("a server that is away: %v", err)
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for want, a := range map[string]Access{
		"kubernetes: this is no pod with a service account: name a kubeconfig file":     {},
		"kubernetes: stat /nonexistent: no such file or directory":                      {Kubeconfig: "/nonexistent"},
		"kubernetes: find the API server: open /nonexistent: no such file or directory": {Server: "/nonexistent"},
	} {
		if _, err := Open(a); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestTheServerMayBeNamedInAFile(t *testing.T) {
	s, _ := serve(t)
	dir := t.TempDir()
	conf, server := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "api-server")
	for path, text := range map[string]string{
		conf:   `{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x"}}],"clusters":[{"name":"x","cluster":{"server":"https://192.0.2.1"}}]}`,
		server: s.URL + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(Access{Kubeconfig: conf, Server: server})
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, services, web("10.100.0.5"))
	h := listen(t, c)
	h.await(t, "the first list", func() bool { return h.text() == "shop/web [10.100.0.5]" })
}

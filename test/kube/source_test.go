// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	auth "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/kube"
	"github.com/l3edge/l3edge/pkg/lab"
)

// account is the user that the daemons are in a cluster.
const account = "system:serviceaccount:l3edge:l3edge"

// manifests is where what users apply lies.
func manifests(file string) string {
	return filepath.Join(os.Getenv(rootVar), "conf", "kubernetes", file)
}

// grant makes the account as the manifests do, and returns a kubeconfig of it.
func (c *control) grant(t *testing.T) string {
	t.Helper()
	c.kubectl(t, "apply", "-f", manifests("base/namespace.yaml"), "-f", manifests("base/rbac.yaml"))
	tok, err := c.admin.CoreV1().ServiceAccounts("l3edge").CreateToken(t.Context(), "l3edge", &auth.TokenRequest{}, meta.CreateOptions{})
	must(t, err)
	return c.tokenConfig(t, "l3edge", c.first.url(), tok.Status.Token)
}

// service makes a Service with this cluster address (empty: the API server's choice) and one EndpointSlice of it.
func (c *control) service(t *testing.T, name, vip string, endpoints ...string) *core.Service {
	t.Helper()
	s := &core.Service{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: core.ServiceSpec{ClusterIP: vip, Ports: []core.ServicePort{{Port: 80}}}}
	s, err := c.admin.CoreV1().Services("default").Create(t.Context(), s, meta.CreateOptions{})
	must(t, err)
	_, err = c.admin.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice(name, endpoints...), meta.CreateOptions{})
	must(t, err)
	return s
}

func slice(name string, endpoints ...string) *discovery.EndpointSlice {
	port, portName := int32(8080), ""
	o := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Name: name + "-1", Labels: map[string]string{discovery.LabelServiceName: name}},
		AddressType: discovery.AddressTypeIPv4, Ports: []discovery.EndpointPort{{Port: &port, Name: &portName}},
	}
	for _, e := range endpoints {
		o.Endpoints = append(o.Endpoints, discovery.Endpoint{Addresses: []string{e}})
	}
	return o
}

// endpoints replaces those of the service.
func (c *control) endpoints(t *testing.T, name string, endpoints ...string) {
	t.Helper()
	_, err := c.admin.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice(name, endpoints...), meta.UpdateOptions{})
	must(t, err)
}

func (c *control) remove(t *testing.T, name string) {
	t.Helper()
	must(t, c.admin.CoreV1().Services("default").Delete(t.Context(), name, meta.DeleteOptions{}))
	must(t, c.admin.DiscoveryV1().EndpointSlices("default").Delete(t.Context(), name+"-1", meta.DeleteOptions{}))
}

// ear holds what the source under test said last.
type ear struct {
	mu      sync.Mutex
	known   service.Delta
	problem error
	trouble []error
}

// listen follows the API server's Services until the test ends.
func listen(t *testing.T, api *kube.Client) *ear {
	t.Helper()
	e := &ear{known: service.Delta{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- api.Services(ctx, func(d service.Delta, err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.known.Merge(d)
			e.problem = err
		}, func(err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.trouble = append(e.trouble, err)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Services: %v", err)
		}
	})
	return e
}

// says is what is known of services whose names begin so: "a 10.100.0.5 10.10.10.2:8080", sorted.
func (e *ear) says(prefix string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for name, st := range e.known {
		if st == nil || len(st.Service.ClusterIPs) == 0 || !strings.HasPrefix(name.Name, prefix) {
			continue
		}
		line := fmt.Sprint(name.Name, " ", st.Service.ClusterIPs[0])
		for _, ep := range st.Of(0) {
			line += " " + ep.Addr.String()
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (e *ear) mustSay(t *testing.T, prefix, want string) {
	t.Helper()
	within(t, patience, fmt.Sprintf("source says %q", want), func() error {
		if got := e.says(prefix); got != want {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

func (e *ear) count(prefix string) int { return strings.Count(e.says(prefix)+"\n", "\n") }

func open(t *testing.T, kubeconfig string) *kube.Client {
	t.Helper()
	api, err := kube.Open(kube.Access{Kubeconfig: kubeconfig})
	must(t, err)
	return api
}

// TestSource is one API server's life as pkg/edge/kube sees it, with the rights that the manifests grant.
func TestSource(t *testing.T) {
	c := newControl(t, up(t, lab.Embedded))
	api := open(t, c.grant(t))
	e := listen(t, api)
	e.mustSay(t, "kubernetes", "kubernetes 10.100.0.1 10.20.30.61:6443")

	t.Run("services come, change and go", func(t *testing.T) {
		s := c.service(t, "a", "", "10.10.10.2")
		e.mustSay(t, "a", "a "+s.Spec.ClusterIP+" 10.10.10.2:8080")
		c.endpoints(t, "a", "10.10.10.2", "10.10.30.2")
		e.mustSay(t, "a", "a "+s.Spec.ClusterIP+" 10.10.10.2:8080 10.10.30.2:8080")
		c.endpoints(t, "a")
		e.mustSay(t, "a", "a "+s.Spec.ClusterIP)
		c.remove(t, "a")
		e.mustSay(t, "a", "")
	})
	t.Run("headless services and those of another proxy are none of ours", func(t *testing.T) {
		c.service(t, "h-headless", core.ClusterIPNone, "10.10.10.2")
		s := &core.Service{ObjectMeta: meta.ObjectMeta{Name: "h-theirs", Labels: map[string]string{"service.kubernetes.io/service-proxy-name": "x"}}, Spec: core.ServiceSpec{ClusterIP: "10.100.3.4", Ports: []core.ServicePort{{Port: 80}}}}
		_, err := c.admin.CoreV1().Services("default").Create(t.Context(), s, meta.CreateOptions{})
		must(t, err)
		c.service(t, "h-ours", "10.100.3.3", "10.10.10.2")
		e.mustSay(t, "h-", "h-ours 10.100.3.3 10.10.10.2:8080")
	})
	t.Run("killed and started again between changes", func(t *testing.T) {
		c.service(t, "k", "10.100.4.4", "10.10.10.2")
		e.mustSay(t, "k", "k 10.100.4.4 10.10.10.2:8080\nkubernetes 10.100.0.1 10.20.30.61:6443")
		c.first.kill()
		within(t, patience, "trouble is told", func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.trouble) == 0 {
				return fmt.Errorf("none")
			}
			return nil
		})
		e.mustSay(t, "k", "k 10.100.4.4 10.10.10.2:8080\nkubernetes 10.100.0.1 10.20.30.61:6443")
		c.first.restart(t)
		c.endpoints(t, "k", "10.10.30.2")
		e.mustSay(t, "k", "k 10.100.4.4 10.10.30.2:8080\nkubernetes 10.100.0.1 10.20.30.61:6443")
		within(t, patience, "trouble is over", func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.trouble[len(e.trouble)-1]
		})
	})
	t.Run("changes that nobody saw", func(t *testing.T) { unseen(t, c, e) })
	t.Run("five thousand services", func(t *testing.T) { many(t, c, e, 5000) })
	t.Run("nets and the node", func(t *testing.T) { nodeAndNets(t, c, api) })
	t.Run("rights", func(t *testing.T) { c.mustUseEveryRight(t) })
}

// unseen changes things through a second API server while the first is away: its successor cannot continue the watch from
// where it was.
func unseen(t *testing.T, c *control, e *ear) {
	for i := range 3 {
		c.service(t, fmt.Sprint("u", i), fmt.Sprint("10.100.5.", i+1), "10.10.10.2")
	}
	e.mustSay(t, "u", "u0 10.100.5.1 10.10.10.2:8080\nu1 10.100.5.2 10.10.10.2:8080\nu2 10.100.5.3 10.10.10.2:8080")
	other := *c
	second := &server{c: c, port: 6444}
	second.start(t)
	t.Cleanup(second.kill)
	other.admin = clientOf(t, c.kubeconfig(t, "admin", second.url()))
	other.first = second
	other.ready(t)
	c.first.kill()
	other.endpoints(t, "u0", "10.10.30.2")
	other.remove(t, "u1")
	other.service(t, "u3", "10.100.5.4", "10.10.20.2")
	c.kubeconfig(t, "admin", c.first.url())
	c.first.restart(t)
	e.mustSay(t, "u", "u0 10.100.5.1 10.10.30.2:8080\nu2 10.100.5.3 10.10.10.2:8080\nu3 10.100.5.4 10.10.20.2:8080")
}

// many makes n services, and wants each change of one of them as fast as before.
func many(t *testing.T, c *control, e *ear, n int) {
	start := time.Now()
	work := make(chan int)
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				name := fmt.Sprintf("m%04d", i)
				s := &core.Service{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: core.ServiceSpec{ClusterIP: fmt.Sprintf("10.100.%d.%d", 100+i/250, 1+i%250), Ports: []core.ServicePort{{Port: 80}}}}
				if _, err := c.admin.CoreV1().Services("default").Create(t.Context(), s, meta.CreateOptions{}); err != nil {
					errs <- err
				}
				if _, err := c.admin.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice(name, "10.10.10.2", "10.10.20.2", "10.10.30.2"), meta.CreateOptions{}); err != nil {
					errs <- err
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	t.Logf("%d services made in %v", n, time.Since(start).Round(time.Second))
	within(t, patience, "all of them are known", func() error {
		if got := e.count("m"); got != n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	fresh := listen(t, open(t, c.path("l3edge.conf")))
	within(t, patience, "known to who asks anew", func() error {
		if got := fresh.count("m"); got != n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	c.endpoints(t, "m2500", "10.10.40.2")
	e.mustSay(t, "m2500", "m2500 10.100.110.1 10.10.40.2:8080")
}

// nodeAndNets follows a node and the Service nets, and writes what routed writes.
func nodeAndNets(t *testing.T, c *control, api *kube.Client) {
	const name = "kubminion1"
	_, err := c.admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: core.NodeSpec{PodCIDR: "10.10.7.0/24", PodCIDRs: []string{"10.10.7.0/24"}}}, meta.CreateOptions{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	members, nets := make(chan kubeobj.Member, 100), make(chan []netip.Prefix, 10)
	trouble := func(err error) {
		if err != nil && ctx.Err() == nil {
			t.Errorf("trouble: %v", err)
		}
	}
	go api.Node(ctx, name, func(m kubeobj.Member, err error) { members <- m }, trouble) //nolint:errcheck // nil
	go api.ServiceNets(ctx, func(p []netip.Prefix) { nets <- p }, trouble)              //nolint:errcheck // nil
	if got := fmt.Sprint(next(t, nets)); got != "["+serviceNet+" "+serviceNet6+"]" {
		t.Errorf("nets %s", got)
	}
	if m := next(t, members); fmt.Sprint(m.PodSubnets) != "[10.10.7.0/24]" || m.Unwanted != "" {
		t.Errorf("%+v", m)
	}
	c.kubectl(t, "annotate", "node", name, "l3edge.dev/asn=64777")
	if m := next(t, members); m.ASN != 64777 {
		t.Errorf("%+v", m)
	}
	c.kubectl(t, "cordon", name)
	for m := next(t, members); m.Unwanted != "cordoned"; m = next(t, members) {
	}
	must(t, api.SetConditions(t.Context(), name, kube.Condition{Type: "NetworkUnavailable", Reason: "RoutesAnnounced", Message: "said by a test"}))
	must(t, api.Event(t.Context(), name, kube.Object{Kind: "Node", Name: name}, false, "Announced", "10.10.7.0/24 to mls"))
	must(t, api.Event(t.Context(), name, kube.Object{Kind: "Service", Namespace: "default", Name: "kubernetes"}, true, "Withdrawn", "no endpoint"))
	n, err := c.admin.CoreV1().Nodes().Get(t.Context(), name, meta.GetOptions{})
	must(t, err)
	if i := slices.IndexFunc(n.Status.Conditions, func(x core.NodeCondition) bool { return x.Type == core.NodeNetworkUnavailable }); i < 0 || n.Status.Conditions[i].Status != core.ConditionFalse {
		t.Errorf("conditions: %+v", n.Status.Conditions)
	}
	if out := c.kubectl(t, "events", "-n", "default"); !strings.Contains(out, "10.10.7.0/24 to mls") || !strings.Contains(out, "no endpoint") {
		t.Errorf("events:\n%s", out)
	}
}

func next[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatal("nothing more is said")
	}
	return v
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// TestPortald is one node's portald beside a real API server.
func TestPortald(t *testing.T) {
	l := up(t, lab.Embedded)
	c := newControl(t, l)
	node, conf := l.Hosts["kubminion1"], c.grant(t)
	var backends []string
	for _, host := range []string{"kubmasta", "outside"} {
		h := l.Hosts[host]
		_, err := h.Start("web", lab.Program("l3ctl"), "lab", "web", "--container=web", "--pod="+host, "--port=8080")
		must(t, err)
		backends = append(backends, h.Spec.Addr.Addr().String())
	}
	const vip = "10.100.9.9"
	c.service(t, "web", vip, backends[0])
	start := func() *place.Process {
		p, err := node.Start("portald", lab.Program("portald"), "--kubeconfig="+conf)
		must(t, err)
		return p
	}
	must(t, node.StartRouted())                                  // it says which addresses are the node's
	_, err := node.Run("sysctl", "-qw", "net.ipv4.ip_forward=1") // as the first pod does
	must(t, err)
	portald := start()
	within(t, patience, "the first answer", func() error { return answers(node, vip, "kubmasta") })
	if out, err := node.Run("portald", "status"); err != nil || !strings.Contains(out, serviceNet) && !strings.Contains(out, "default/web") {
		t.Errorf("portald status: %v\n%s", err, out)
	}

	t.Run("change to first answer", func(t *testing.T) {
		hosts := []string{"kubmasta", "outside"}
		var took []time.Duration
		for i := 1; i <= 21; i++ {
			c.endpoints(t, "web", backends[i%2])
			begin := time.Now()
			must(t, place.Eventually(patience, func() error { return answers(node, vip, hosts[i%2]) }))
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		t.Logf("EndpointSlice changed → first answer: median %v, worst %v of %d", took[len(took)/2].Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond), len(took))
	})
	t.Run("the API server's own service", func(t *testing.T) {
		if out, err := node.Run("curl", "-sk", "--max-time", "5", "https://"+firstVIP+"/version"); err != nil || !strings.Contains(out, "gitVersion") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("restarted while the API server is away", func(t *testing.T) {
		c.endpoints(t, "web", backends...)
		within(t, patience, "the other answers", func() error { return answers(node, vip, "outside") })
		asking := begin(node.Place, vip+":80")
		c.first.kill()
		must(t, portald.Stop())
		portald = start()
		time.Sleep(3 * time.Second) // the outage itself
		c.first.restart(t)
		c.endpoints(t, "web", backends[1])
		within(t, patience, "the new portald follows", func() error {
			for range 5 {
				if err := answers(node, vip, "outside"); err != nil {
					return err
				}
			}
			return nil
		})
		asking.end(t, "the restart")
	})
	t.Run("killed while a service goes and another comes", func(t *testing.T) {
		asking := begin(node.Place, vip+":80")
		portald.Kill()
		c.service(t, "late", "10.100.9.10", backends[0])
		portald = start()
		within(t, patience, "the service that came", func() error { return answers(node, "10.100.9.10", "kubmasta") })
		portald.Kill()
		c.remove(t, "late")
		portald = start()
		within(t, patience, "the service that went", func() error {
			if err := answers(node, "10.100.9.10", "kubmasta"); err == nil {
				return fmt.Errorf("it still answers")
			}
			return nil
		})
		asking.end(t, "two crashes")
	})
	t.Run("a service type that changes", func(t *testing.T) {
		s, err := c.admin.CoreV1().Services("default").Get(t.Context(), "web", meta.GetOptions{})
		must(t, err)
		s.Spec.Type = core.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30080
		_, err = c.admin.CoreV1().Services("default").Update(t.Context(), s, meta.UpdateOptions{})
		must(t, err)
		within(t, patience, "the node port", func() error { return answersAt(l.Hosts["kubmasta"], "10.20.30.62:30080", "outside") })
		s, err = c.admin.CoreV1().Services("default").Get(t.Context(), "web", meta.GetOptions{})
		must(t, err)
		s.Spec.Type = core.ServiceTypeExternalName
		s.Spec.ExternalName = "example.org"
		s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.Ports = "", nil, nil
		_, err = c.admin.CoreV1().Services("default").Update(t.Context(), s, meta.UpdateOptions{})
		must(t, err)
		within(t, patience, "nothing of it is left", func() error {
			if out, err := node.Run("nft", "list", "table", "ip", "l3edge"); err != nil || strings.Contains(out, vip) || strings.Contains(out, "30080") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	})
}

// answers wants the backend on the host of that name to answer at the address's port 80.
func answers(from *lab.Host, vip, host string) error { return answersAt(from, vip+":80", host) }

func answersAt(from *lab.Host, addr, host string) error {
	a, err := from.Ask(addr)
	if err == nil && a.Pod != host {
		err = fmt.Errorf("%s answers, want %s", a.Pod, host)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func snapshot(svcs ...Service) Snapshot {
	s := Snapshot{Services: map[Name]Service{}}
	for _, svc := range svcs {
		s.Services[svc.Name] = svc
	}
	return s
}

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestEnvOfTheArticle(t *testing.T) {
	got := Env(snapshot(
		Service{Name: Name{"default", "webfrontend"}, ClusterIPs: addrs("10.100.87.105"), Ports: []Port{{Protocol: TCP, Port: 80}}},
		Service{Name: Name{"default", "kubernetes-ro"}, ClusterIPs: addrs("10.100.0.1"), Ports: []Port{{Name: "http-ro", Protocol: TCP, Port: 80}}},
		Service{Name: Name{"default", "peers"}, Ports: []Port{{Protocol: TCP, Port: 80}}},
		Service{Name: Name{"other", "hidden"}, ClusterIPs: addrs("10.100.9.9"), Ports: []Port{{Protocol: TCP, Port: 80}}},
	), "default")
	want := `KUBERNETES_RO_SERVICE_HOST=10.100.0.1
KUBERNETES_RO_SERVICE_PORT=80
KUBERNETES_RO_SERVICE_PORT_HTTP_RO=80
KUBERNETES_RO_PORT=tcp://10.100.0.1:80
KUBERNETES_RO_PORT_80_TCP=tcp://10.100.0.1:80
KUBERNETES_RO_PORT_80_TCP_PROTO=tcp
KUBERNETES_RO_PORT_80_TCP_PORT=80
KUBERNETES_RO_PORT_80_TCP_ADDR=10.100.0.1
WEBFRONTEND_SERVICE_HOST=10.100.87.105
WEBFRONTEND_SERVICE_PORT=80
WEBFRONTEND_PORT=tcp://10.100.87.105:80
WEBFRONTEND_PORT_80_TCP=tcp://10.100.87.105:80
WEBFRONTEND_PORT_80_TCP_PROTO=tcp
WEBFRONTEND_PORT_80_TCP_PORT=80
WEBFRONTEND_PORT_80_TCP_ADDR=10.100.87.105`
	if d := cmp.Diff(want, strings.Join(got, "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestEnvNamespaces(t *testing.T) {
	s := snapshot(
		Service{Name: Name{"default", "kubernetes"}, ClusterIPs: addrs("10.100.0.2"), Ports: []Port{{Protocol: TCP, Port: 443}}},
		Service{Name: Name{"default", "web"}, ClusterIPs: addrs("10.100.0.3"), Ports: []Port{{Protocol: TCP, Port: 80}}},
		Service{Name: Name{"odd", "kubernetes"}, ClusterIPs: addrs("fd00::2"), Ports: []Port{{Protocol: UDP, Port: 53}}},
	)
	for ns, want := range map[string]string{
		"other": "KUBERNETES_SERVICE_HOST=10.100.0.2", // the API server's service is known everywhere
		"odd":   "KUBERNETES_SERVICE_HOST=fd00::2",    // unless the namespace has one of that name
	} {
		got := Env(s, ns)
		if len(got) == 0 || got[0] != want {
			t.Errorf("namespace %s: %v, want first %s", ns, got, want)
		}
		if strings.Contains(strings.Join(got, "\n"), "WEB_") {
			t.Errorf("namespace %s sees another namespace's service: %v", ns, got)
		}
	}
	if got := strings.Join(Env(s, "odd"), "\n"); !strings.Contains(got, "KUBERNETES_PORT=udp://[fd00::2]:53") {
		t.Errorf("an IPv6 address in a URL stands in brackets, got\n%s", got)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	err := Service{
		Name: Name{Namespace: "default"}, ClusterIPs: addrs("10.100.0.1", "127.0.0.1"), ExternalIPs: addrs("224.0.0.1"),
		SourceRanges: []netip.Prefix{{}}, Affinity: -time.Second,
		Ports: []Port{{Name: "a", Protocol: TCP, Port: 80}, {Name: "a", Protocol: TCP, Port: 80}, {Name: "b", Protocol: 1}},
	}.Validate()
	want := `metadata.name: missing
spec.clusterIPs[1]: 127.0.0.1 cannot be a service address
spec.externalIPs[0]: 224.0.0.1 cannot be a service address
spec.loadBalancerSourceRanges[0]: not a prefix
spec.sessionAffinityConfig: a timeout of -1s is negative
spec.ports[1].name: "a" is also the name of spec.ports[0]
spec.ports[1]: TCP 80 is also spec.ports[0]
spec.ports[2].port: 0 is not a port
spec.ports[2].protocol: protocol 1 is not TCP, UDP or SCTP`
	if err == nil {
		t.Fatal("a service full of mistakes passed")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNamesAreLabels(t *testing.T) {
	const long = "a234567890123456789012345678901234567890123456789012345678901234"
	for name, want := range map[string]string{
		"web": "", "web-1": "", "1web": "", long[:63]: "",
		long:            "metadata.name: 64 bytes; 63 are the most",
		"web.v2":        `metadata.name: "web.v2" is not a DNS label: a-z, 0-9 and, within, -`,
		"Web":           `metadata.name: "Web" is not a DNS label: a-z, 0-9 and, within, -`,
		"-web":          `metadata.name: "-web" is not a DNS label: a-z, 0-9 and, within, -`,
		"web-":          `metadata.name: "web-" is not a DNS label: a-z, 0-9 and, within, -`,
		"a\nflush":      `metadata.name: "a\nflush" is not a DNS label: a-z, 0-9 and, within, -`,
		"\u00fcber\x00": `metadata.name: "\u00fcber\x00" is not a DNS label: a-z, 0-9 and, within, -`,
	} {
		got := ""
		if err := (Service{Name: Name{"default", name}}).Validate(); err != nil {
			got = err.Error()
		}
		if strings.ReplaceAll(got, "\u00fc", "\\u00fc") != want && got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
	err := Service{Name: Name{"a b", "web"}, Ports: []Port{{Name: "HTTP", Protocol: TCP, Port: 80}}}.Validate()
	want := "metadata.namespace: \"a b\" is not a DNS label: a-z, 0-9 and, within, -\nspec.ports[0].name: \"HTTP\" is not a DNS label: a-z, 0-9 and, within, -"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAddressesOfServices(t *testing.T) {
	for text, want := range map[string]struct{ cluster, external bool }{
		"10.100.0.1": {true, true}, "fd00::1": {true, true}, "2001:db8::1": {true, true},
		"240.0.0.1":       {true, false}, // some clusters live there
		"255.255.255.255": {}, "0.1.2.3": {}, "169.254.1.1": {}, "fe80::1": {}, "127.0.0.1": {}, "::1": {}, "224.0.0.1": {}, "ff02::1": {}, "::": {},
	} {
		web := Name{"default", "web"}
		if err := (Service{Name: web, ClusterIPs: addrs(text)}).Validate(); (err == nil) != want.cluster {
			t.Errorf("%s as a cluster address: %v", text, err)
		}
		for _, svc := range []Service{{Name: web, ExternalIPs: addrs(text)}, {Name: web, LoadBalancers: addrs(text)}} {
			if err := svc.Validate(); (err == nil) != want.external {
				t.Errorf("%s from outside: %v", text, err)
			}
		}
	}
}

func TestNames(t *testing.T) {
	n := Name{"default", "dns"}
	for got, want := range map[string]string{
		PortName{Name: n}.String():              "default/dns",
		PortName{Name: n, Port: "tcp"}.String(): "default/dns:tcp",
		UDP.String() + " " + SCTP.String():      "UDP SCTP",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

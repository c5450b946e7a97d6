// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestHealthPortsCountLocalEndpoints(t *testing.T) {
	s := services("web 10.100.0.5", "db 10.100.0.6", "plain 10.100.0.7")
	set := func(name string, port uint16, eps ...service.Endpoint) {
		n := service.Name{Namespace: "default", Name: name}
		svc := s.Services[n]
		svc.HealthPort = port
		s.Services[n] = svc
		s.Endpoints[service.PortName{Name: n}] = eps
	}
	at := func(addr, node string, ready, terminating bool) service.Endpoint {
		return service.Endpoint{Addr: netip.MustParseAddrPort(addr), Node: node, Ready: ready, Terminating: terminating}
	}
	set("web", 30500, at("10.10.10.2:8080", "kubminion1", true, false), at("10.10.10.2:8081", "kubminion1", true, false),
		at("10.10.10.3:8080", "kubminion1", true, false), at("10.10.10.4:8080", "kubminion1", false, false),
		at("10.10.10.5:8080", "kubminion1", true, true), at("10.10.20.2:8080", "kubminion2", true, false), at("10.10.20.3:8080", "", true, false))
	set("db", 30501, at("10.10.20.2:8080", "kubminion2", true, false))
	want := map[uint16]HealthPort{
		30500: {service.Name{Namespace: "default", Name: "web"}, 2}, 30501: {service.Name{Namespace: "default", Name: "db"}, 0},
	}
	healthPorts := func(node string) map[uint16]HealthPort {
		b := newBeacons(node)
		for name, st := range s.Delta() {
			b.update(name, st)
		}
		return b.ports()
	}
	if d := cmp.Diff(want, healthPorts("kubminion1")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := healthPorts("")[30500].Local; got != 0 {
		t.Errorf("a node without a name has %d local endpoints", got)
	}
}

func TestBeacon(t *testing.T) {
	var sick error
	b := NewBeacon(func() error { return sick })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	web := service.Name{Namespace: "default", Name: "web"}
	ask := func(port int) string {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
		if err != nil {
			return "refused"
		}
		defer resp.Body.Close() //nolint:errcheck // read whole
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode, " weight ", resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), " ", strings.TrimSpace(string(body)))
	}
	steps := []struct {
		name  string
		ports map[uint16]HealthPort
		sick  error
		want  string
	}{
		{"with endpoints", map[uint16]HealthPort{30500: {web, 2}}, nil, `200 weight 2 {"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`},
		{"without", map[uint16]HealthPort{30500: {web, 0}}, nil, `503 weight 0 {"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}`},
		{"on a sick node", map[uint16]HealthPort{30500: {web, 2}}, errors.New("behind"), `503 weight 2 {"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":false}`},
		{"of a service that is gone", nil, nil, "refused"},
	}
	for _, s := range steps {
		sick = s.sick
		if errs := b.Apply(s.ports); len(errs) > 0 {
			t.Errorf("%s: %v", s.name, errs)
		}
		if got := ask(30500); got != s.want {
			t.Errorf("%s:\ngot  %s\nwant %s", s.name, got, s.want)
		}
	}
	taken, err := net.Listen("tcp", ":30501")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test server
	errs := b.Apply(map[uint16]HealthPort{30500: {web, 1}, 30501: {web, 1}})
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "service default/web: health check port: listen tcp :30501") {
		t.Errorf("a taken port: %v", errs)
	}
	if got := ask(30500); !strings.HasPrefix(got, "200 ") {
		t.Errorf("the other port answers %s", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := ask(30500); got != "refused" {
		t.Errorf("after the end: %s", got)
	}
}

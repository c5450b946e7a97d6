// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// HealthPort is what a load balancer is told at a Service's healthCheckNodePort.
type HealthPort struct {
	Service service.Name
	Local   int // endpoints on this node that serve
}

// beacons knows the health ports of services, as one node sees them.
type beacons struct {
	node    string
	asked   map[service.Name]beacon
	changed bool
}

type beacon struct {
	port  uint16
	local int
}

func newBeacons(node string) beacons { return beacons{node: node, asked: map[service.Name]beacon{}} }

func (b *beacons) update(name service.Name, st *service.State) {
	old, had := b.asked[name]
	if st == nil || st.Service.HealthPort == 0 {
		delete(b.asked, name)
		b.changed = b.changed || had
		return
	}
	local := map[netip.Addr]bool{}
	for i := range st.Service.Ports {
		for _, e := range st.Of(i) {
			if e.Node == b.node && b.node != "" && (e.Ready || st.Service.NotReady) && !e.Terminating {
				local[e.Addr.Addr()] = true
			}
		}
	}
	now := beacon{st.Service.HealthPort, len(local)}
	b.asked[name] = now
	b.changed = b.changed || !had || old != now
}

// ports lists them. Of two services with one port the first by name has it; Kubernetes does not let that happen.
func (b *beacons) ports() map[uint16]HealthPort {
	out := map[uint16]HealthPort{}
	for name, one := range b.asked {
		if other, taken := out[one.port]; taken && other.Service.String() < name.String() {
			continue
		}
		out[one.port] = HealthPort{Service: name, Local: one.local}
	}
	return out
}

// Beacon answers at health ports: 200 if the node has endpoints of the Service, 503 if not, in kube-proxy's words.
type Beacon struct {
	healthy func() error

	mu     sync.Mutex
	ports  map[uint16]HealthPort
	open   map[uint16]*http.Server
	live   sync.WaitGroup
	closed bool
}

// NewBeacon returns a Beacon that answers nowhere yet. While healthy returns an error no port answers 200.
func NewBeacon(healthy func() error) *Beacon {
	return &Beacon{healthy: healthy, ports: map[uint16]HealthPort{}, open: map[uint16]*http.Server{}}
}

// Apply makes the Beacon answer at exactly these ports. It reports ports that cannot be opened, and opens the others.
func (b *Beacon) Apply(ports map[uint16]HealthPort) []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.ports = ports
	for port, s := range b.open {
		if _, still := ports[port]; !still {
			_ = s.Close() // nobody is waiting for an answer that counts
			delete(b.open, port)
		}
	}
	var errs []error
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if b.open[port] != nil {
			continue
		}
		l, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: health check port: %w", ports[port].Service, err))
			continue
		}
		s := &http.Server{Handler: b.handler(port), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second}
		b.open[port] = s
		b.live.Go(func() { _ = s.Serve(l) }) // ends when s is closed
	}
	return errs
}

// Run waits for the end of ctx and closes all ports.
func (b *Beacon) Run(ctx context.Context) error {
	<-ctx.Done()
	b.mu.Lock()
	b.closed = true
	var errs []error
	for _, s := range b.open {
		errs = append(errs, s.Close())
	}
	b.mu.Unlock()
	b.live.Wait()
	return errors.Join(errs...)
}

func (b *Beacon) handler(port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		p := b.ports[port]
		b.mu.Unlock()
		healthy := b.healthy() == nil
		type name struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		}
		body, err := json.Marshal(struct {
			Service name `json:"service"`
			Local   int  `json:"localEndpoints"`
			Healthy bool `json:"serviceProxyHealthy"`
		}{name{p.Service.Namespace, p.Service.Name}, p.Local, healthy})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(p.Local))
		if p.Local == 0 || !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(append(body, '\n')) // the load balancer may have gone
	})
}

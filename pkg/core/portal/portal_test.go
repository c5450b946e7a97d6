// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// The node of all rows: kubminion1, with pods in 10.10.10.0/24 and fd00:10:10::/64, in zone a.
func options() Options {
	return Options{
		Node: node.Node{
			Name:       "kubminion1",
			PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParsePrefix("fd00:10:10::/64")},
			Addresses:  []netip.Addr{netip.MustParseAddr("10.20.30.62"), netip.MustParseAddr("fd00:20::62"), netip.MustParseAddr("10.99.0.1")},
		},
		Zone: "a",
		Nets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd00:100::/112")},
	}
}

// parseService reads "ns/name field=value...": vip=, lb=, ext=, from= (comma lists), ports (name:TCP/80+30080 or 80),
// itp=local, etp=local, prefer=node|zone, notready, affinity=10s.
func parseService(t *testing.T, s string) service.Service {
	t.Helper()
	f := strings.Fields(s)
	svc := service.Service{Name: service.Name{Namespace: "default", Name: f[0]}}
	for _, w := range f[1:] {
		key, val, _ := strings.Cut(w, "=")
		switch key {
		case "vip":
			svc.ClusterIPs = addrList(val)
		case "lb":
			svc.LoadBalancers = addrList(val)
		case "ext":
			svc.ExternalIPs = addrList(val)
		case "from":
			for _, p := range strings.Split(val, ",") {
				svc.SourceRanges = append(svc.SourceRanges, netip.MustParsePrefix(p))
			}
		case "itp":
			svc.InternalPolicy = service.Local
		case "etp":
			svc.ExternalPolicy = service.Local
		case "prefer":
			svc.Distribution = map[string]service.Distribution{"node": service.PreferSameNode, "zone": service.PreferSameZone}[val]
		case "notready":
			svc.NotReady = true
		case "affinity":
			svc.Affinity, _ = time.ParseDuration(val)
		case "ports":
			for _, p := range strings.Split(val, ",") {
				svc.Ports = append(svc.Ports, parsePort(t, p))
			}
		default:
			t.Fatalf("service %q: what is %q?", s, w)
		}
	}
	return svc
}

func parsePort(t *testing.T, s string) service.Port {
	t.Helper()
	p := service.Port{Protocol: service.TCP}
	if name, rest, ok := strings.Cut(s, ":"); ok {
		p.Name, s = name, rest
	}
	if proto, rest, ok := strings.Cut(s, "/"); ok {
		p.Protocol, s = parseProto(proto), rest
	}
	num, np, _ := strings.Cut(s, "+")
	n, err := strconv.Atoi(num)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := strconv.Atoi(np)
	p.Port, p.NodePort = uint16(n), uint16(m)
	return p
}

func parseProto(s string) service.Protocol {
	return map[string]service.Protocol{"TCP": service.TCP, "UDP": service.UDP, "SCTP": service.SCTP, "ICMP": ICMP, "ICMPv6": ICMPv6}[s]
}

func addrList(s string) []netip.Addr {
	var out []netip.Addr
	for _, a := range strings.Split(s, ",") {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// parseEndpoints reads "address:port[@node][%zone][>zone-hint][>>node-hint][!state]" words; states are down (not ready),
// ending (terminating, serving), gone (terminating, not serving), leaving (terminating, and called ready all the same).
func parseEndpoints(s string) []service.Endpoint {
	var out []service.Endpoint
	for _, w := range strings.Fields(s) {
		e := service.Endpoint{Ready: true, Serving: true}
		var state string
		w, state, _ = strings.Cut(w, "!")
		switch state {
		case "down":
			e.Ready, e.Serving = false, false
		case "ending":
			e.Ready, e.Terminating = false, true
		case "leaving":
			e.Terminating = true
		case "gone":
			e.Ready, e.Serving, e.Terminating = false, false, true
		}
		if head, hint, ok := strings.Cut(w, ">>"); ok {
			w, e.ForNodes = head, strings.Split(hint, ",")
		}
		if head, hint, ok := strings.Cut(w, ">"); ok {
			w, e.ForZones = head, strings.Split(hint, ",")
		}
		w, e.Zone, _ = strings.Cut(w, "%")
		w, e.Node, _ = strings.Cut(w, "@")
		e.Addr = netip.MustParseAddrPort(w)
		out = append(out, e)
	}
	return out
}

// parsePacket reads "from -> to:port[/PROTO]", or "from -> to/ICMP" for a ping.
func parsePacket(s string) Packet {
	from, rest, _ := strings.Cut(s, " -> ")
	to, proto, ok := strings.Cut(rest, "/")
	p := Packet{From: netip.MustParseAddr(from), Protocol: service.TCP}
	if ok {
		p.Protocol = parseProto(proto)
	}
	if p.Protocol == ICMP || p.Protocol == ICMPv6 {
		p.To = netip.MustParseAddr(to)
		return p
	}
	ap := netip.MustParseAddrPort(to)
	p.To, p.Port = ap.Addr(), ap.Port()
	return p
}

// tell runs a packet through the services and prints the outcome: the verdict, and for "forward" each endpoint, with a
// "*" where the source is rewritten.
func tell(t *testing.T, tab Table, packet string) string {
	t.Helper()
	p := parsePacket(packet)
	out := Trace(tab, p)
	words := []string{out.Verdict.String()}
	for _, e := range out.Endpoints {
		w := e.String()
		if tab.Source(p.From, Key{p.To, p.Protocol, p.Port}, e.Addr()) != Keep {
			w += "*"
		}
		words = append(words, w)
	}
	if out.Why == "" {
		t.Errorf("%s: no reason given", packet)
	}
	return strings.Join(words, " ")
}

// world builds a snapshot of "service line" and "service[:port] <- endpoints" lines.
func world(t *testing.T, lines []string) service.Snapshot {
	t.Helper()
	s := service.Snapshot{Services: map[service.Name]service.Service{}, Endpoints: map[service.PortName][]service.Endpoint{}}
	for _, l := range lines {
		if name, eps, ok := strings.Cut(l, " <- "); ok {
			svc, port, _ := strings.Cut(name, ":")
			pn := service.PortName{Name: service.Name{Namespace: "default", Name: svc}, Port: port}
			s.Endpoints[pn] = append(s.Endpoints[pn], parseEndpoints(eps)...)
			continue
		}
		svc := parseService(t, l)
		s.Services[svc.Name] = svc
	}
	return s
}

// row is one sentence: given services (one line each, in rows of their own), a packet meets this.
type row struct{ sentence, packet, want string }

func check(t *testing.T, lines []string, rows []row) {
	t.Helper()
	checkOn(t, options(), lines, rows)
}

// checkOn is check on another node.
func checkOn(t *testing.T, o Options, lines []string, rows []row) {
	t.Helper()
	tab := Compute(world(t, lines), o)
	for _, r := range rows {
		if got := tell(t, tab, r.packet); got != r.want {
			t.Errorf("%s:\n  %s\n  got  %s\n  want %s", r.sentence, r.packet, got, r.want)
		}
	}
}

func TestClusterIP(t *testing.T) {
	check(t, []string{
		"webfrontend vip=10.100.87.105 ports=80",
		"webfrontend <- 10.10.10.2:8080 10.10.20.2:8080 10.10.30.2:8080 10.10.40.2:8080",
		"dns vip=10.100.0.10,fd00:100::10 ports=dns:UDP/53,dns-tcp:TCP/53",
		"dns:dns <- 10.10.20.5:5353 [fd00:10:20::5]:5353",
		"dns:dns-tcp <- 10.10.20.5:5353",
		"idle vip=10.100.0.30 ports=80",
		"down vip=10.100.0.31 ports=80",
		"down <- 10.10.10.9:80!down 10.10.20.9:80!gone",
		"early vip=10.100.0.32 ports=80 notready",
		"early <- 10.10.20.9:80!down 10.10.20.8:80!gone",
		"mixed vip=10.100.0.33 ports=80",
		"mixed <- 10.10.20.9:80!down 10.10.20.8:80 10.10.20.7:80!ending 10.10.20.8:80",
		"ending vip=10.100.0.34 ports=80",
		"ending <- 10.10.20.7:80!ending 10.10.20.6:80!gone 10.10.20.5:80!down",
		"named vip=10.100.0.35 ports=http:80",
		"named:http <- 10.10.20.1:8080 10.10.20.2:9090",
		"sctp vip=10.100.0.36 ports=SCTP/36412",
		"sctp <- 10.10.20.3:36412",
		"ring vip=10.100.0.39 ports=80",
		"ring <- 10.100.0.39:8080 10.10.20.9:8080",
		"headless ports=80",
		"headless <- 10.10.20.4:80",
		"two vip=10.100.0.37,10.100.0.38 ports=a:80,b:81",
		"two:a <- 10.10.20.5:80",
		"far vip=10.200.0.1 ports=80",
		"far <- 10.10.20.5:80",
		"thief ext=10.100.87.105 ports=80",
		"thief <- 10.10.20.66:80",
		"zz-late vip=10.100.0.30 ports=80",
		"zz-late <- 10.10.20.66:80",
	}, []row{
		{"a pod dials the article's service and gets one of its four backends", "10.10.10.7 -> 10.100.87.105:80", "forward 10.10.10.2:8080 10.10.20.2:8080 10.10.30.2:8080 10.10.40.2:8080"},
		{"a backend dials its own service; balanced to itself its source is rewritten", "10.10.10.2 -> 10.100.87.105:80", "forward 10.10.10.2:8080* 10.10.20.2:8080 10.10.30.2:8080 10.10.40.2:8080"},
		{"the node dials and keeps its address", "10.20.30.62 -> 10.100.87.105:80", "forward 10.10.10.2:8080 10.10.20.2:8080 10.10.30.2:8080 10.10.40.2:8080"},
		{"somebody outside dials a VIP; only remote endpoints need another source", "172.16.0.100 -> 10.100.87.105:80", "forward 10.10.10.2:8080 10.10.20.2:8080* 10.10.30.2:8080* 10.10.40.2:8080*"},
		{"a pod of another node that routes through us counts as outside", "10.10.20.7 -> 10.100.87.105:80", "forward 10.10.10.2:8080 10.10.20.2:8080* 10.10.30.2:8080* 10.10.40.2:8080*"},
		{"a port that the service does not have is refused", "10.10.10.7 -> 10.100.87.105:81", "refuse"},
		{"so is its port under another protocol", "10.10.10.7 -> 10.100.87.105:80/UDP", "refuse"},
		{"an address of the portal net that nobody has is refused", "10.10.10.7 -> 10.100.1.1:80", "refuse"},
		{"an address elsewhere is none of our business", "10.10.10.7 -> 10.10.20.2:8080", "pass"},
		{"nor is the node's own", "10.10.10.7 -> 10.20.30.62:22", "pass"},
		{"UDP and TCP of one number are two ports", "10.10.10.7 -> 10.100.0.10:53/UDP", "forward 10.10.20.5:5353"},
		{"and TCP", "10.10.10.7 -> 10.100.0.10:53", "forward 10.10.20.5:5353"},
		{"the IPv6 address of a service has its IPv6 endpoints", "fd00:10:10::7 -> [fd00:100::10]:53/UDP", "forward [fd00:10:20::5]:5353"},
		{"a service with endpoints of one family only is refused in the other", "fd00:10:10::7 -> [fd00:100::10]:53", "refuse"},
		{"an unallocated IPv6 portal address is refused", "fd00:10:10::7 -> [fd00:100::99]:53", "refuse"},
		{"no endpoints: refused", "10.10.20.7 -> 10.100.0.31:80", "refuse"},
		{"publishNotReadyAddresses: those that are not ready serve, those that are gone do not", "10.10.10.7 -> 10.100.0.32:80", "forward 10.10.20.9:80"},
		{"only ready endpoints are chosen, once each", "10.10.10.7 -> 10.100.0.33:80", "forward 10.10.20.8:80"},
		{"when none is ready, those that end but serve are better than none", "10.10.10.7 -> 10.100.0.34:80", "forward 10.10.20.7:80"},
		{"a named target port has its number from the endpoint", "10.10.10.7 -> 10.100.0.35:80", "forward 10.10.20.1:8080 10.10.20.2:9090"},
		{"SCTP is a protocol like the others", "10.10.10.7 -> 10.100.0.36:36412/SCTP", "forward 10.10.20.3:36412"},
		{"a service may have two addresses: the first", "10.10.10.7 -> 10.100.0.37:80", "forward 10.10.20.5:80"},
		{"a service may have two addresses: the second", "10.10.10.7 -> 10.100.0.38:80", "forward 10.10.20.5:80"},
		{"a service is no endpoint of itself", "10.10.10.7 -> 10.100.0.39:80", "forward 10.10.20.9:8080"},
		{"of two ports one may be empty", "10.10.10.7 -> 10.100.0.38:81", "refuse"},
		{"a VIP outside the portal net is not served", "10.10.10.7 -> 10.200.0.1:80", "pass"},
		{"two services with one VIP: the first by name holds it", "10.10.10.7 -> 10.100.0.30:80", "refuse"},
		{"a VIP answers ping while an endpoint is ready", "10.10.10.7 -> 10.100.87.105/ICMP", "answer"},
		{"from outside too", "172.16.0.100 -> 10.100.87.105/ICMP", "answer"},
		{"and IPv6", "fd00:10:10::7 -> fd00:100::10/ICMPv6", "answer"},
		{"a VIP without endpoints does not", "10.10.10.7 -> 10.100.0.31/ICMP", "refuse"},
		{"nor does an unallocated one", "10.10.10.7 -> 10.100.1.1/ICMP", "refuse"},
		{"a ping to a pod passes", "10.10.10.7 -> 10.10.20.2/ICMP", "pass"},
	})
}

func TestInternalPolicy(t *testing.T) {
	check(t, []string{
		"both vip=10.100.0.1 ports=80 itp=local",
		"both <- 10.10.10.2:80 10.10.20.2:80@kubminion2",
		"away vip=10.100.0.2 ports=80 itp=local",
		"away <- 10.10.20.2:80@kubminion2",
		"none vip=10.100.0.3 ports=80 itp=local",
		"host vip=10.100.0.4 ports=80 itp=local",
		"host <- 10.20.30.62:80 10.20.30.63:80",
		"ending vip=10.100.0.5 ports=80 itp=local",
		"ending <- 10.10.10.2:80!ending 10.10.20.2:80",
		"lb lb=198.51.100.1 ports=80 itp=local",
		"lb <- 10.10.10.2:80 10.10.20.2:80",
		"named vip=10.100.0.6 ports=80 itp=local",
		"named <- 10.99.9.9:80@kubminion1 10.10.10.3:80@kubminion2",
	}, []row{
		{"Local takes the endpoints of this node", "10.10.10.7 -> 10.100.0.1:80", "forward 10.10.10.2:80"},
		{"and is silent when they are all elsewhere", "10.10.10.7 -> 10.100.0.2:80", "silence"},
		{"but refuses when there are none at all", "10.10.10.7 -> 10.100.0.3:80", "refuse"},
		{"a process of the node itself is local by its address", "10.10.10.7 -> 10.100.0.4:80", "forward 10.20.30.62:80"},
		{"a local endpoint that ends serves when no local one is ready, whatever is ready elsewhere", "10.10.10.7 -> 10.100.0.5:80", "forward 10.10.10.2:80"},
		{"the internal policy does not touch a load balancer's address", "10.10.10.7 -> 198.51.100.1:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"the node's name decides over the address", "10.10.10.7 -> 10.100.0.6:80", "forward 10.99.9.9:80"},
		{"an address silent under Local does not answer ping", "10.10.10.7 -> 10.100.0.2/ICMP", "refuse"},
	})
}

func TestExternal(t *testing.T) {
	check(t, []string{
		"open vip=10.100.0.1 lb=198.51.100.1 ext=192.0.2.1 ports=80+30080",
		"open <- 10.10.10.2:80 10.10.20.2:80",
		"kept vip=10.100.0.2 lb=198.51.100.2 ext=192.0.2.2 ports=80+30081 etp=local",
		"kept <- 10.10.10.2:80 10.10.20.2:80",
		"away vip=10.100.0.3 lb=198.51.100.3 ext=192.0.2.3 ports=80+30082 etp=local",
		"away <- 10.10.20.2:80",
		"none vip=10.100.0.4 lb=198.51.100.4 ext=192.0.2.4 ports=80+30083 etp=local",
		"fenced vip=10.100.0.5 lb=198.51.100.5 ports=80+30084 from=203.0.113.0/24,10.10.10.0/24",
		"fenced <- 10.10.10.2:80",
		"fenced6 lb=198.51.100.6,fd00:99::6 ports=80 from=203.0.113.0/24",
		"fenced6 <- 10.10.10.2:80 [fd00:10:10::2]:80",
		"mine lb=10.20.30.62 ext=10.99.0.1 ports=443",
		"mine <- 10.10.10.2:443",
		"six vip=fd00:100::7 ports=80+30087",
		"six <- [fd00:10:20::2]:80",
		"pods ext=10.10.10.50 ports=80",
		"pods <- 10.10.10.2:80",
	}, []row{
		{"NodePort on the primary address, from outside: a remote endpoint needs the way back", "172.16.0.100 -> 10.20.30.62:30080", "forward 10.10.10.2:80 10.10.20.2:80*"},
		{"NodePort from a pod of this node", "10.10.10.7 -> 10.20.30.62:30080", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"NodePort from the node itself", "10.20.30.62 -> 10.20.30.62:30080", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"NodePort not on the second address", "172.16.0.100 -> 10.99.0.1:30080", "pass"},
		{"nor under another protocol", "172.16.0.100 -> 10.20.30.62:30080/UDP", "pass"},
		{"a NodePort is no port of the VIP", "10.10.10.7 -> 10.100.0.1:30080", "refuse"},
		{"NodePort over IPv6", "fd00:16::100 -> [fd00:20::62]:30087", "forward [fd00:10:20::2]:80*"},
		{"a load balancer's address", "172.16.0.100 -> 198.51.100.1:80", "forward 10.10.10.2:80 10.10.20.2:80*"},
		{"its other ports are refused", "172.16.0.100 -> 198.51.100.1:81", "refuse"},
		{"and it answers ping", "172.16.0.100 -> 198.51.100.1/ICMP", "answer"},
		{"an external address", "172.16.0.100 -> 192.0.2.1:80", "forward 10.10.10.2:80 10.10.20.2:80*"},
		{"its other ports may be another machine's business", "172.16.0.100 -> 192.0.2.1:22", "pass"},
		{"and so is its ping", "172.16.0.100 -> 192.0.2.1/ICMP", "pass"},
		{"policy Local from outside: endpoints of this node, source kept", "172.16.0.100 -> 10.20.30.62:30081", "forward 10.10.10.2:80"},
		{"policy Local, load balancer", "172.16.0.100 -> 198.51.100.2:80", "forward 10.10.10.2:80"},
		{"policy Local, external address", "172.16.0.100 -> 192.0.2.2:80", "forward 10.10.10.2:80"},
		{"policy Local binds outsiders only: a pod here reaches all", "10.10.10.7 -> 198.51.100.2:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"and so does the node", "10.20.30.62 -> 10.20.30.62:30081", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"policy Local does not touch the ClusterIP", "172.16.0.100 -> 10.100.0.2:80", "forward 10.10.10.2:80 10.10.20.2:80*"},
		{"policy Local without local endpoints is silent: NodePort", "172.16.0.100 -> 10.20.30.62:30082", "silence"},
		{"policy Local without local endpoints is silent: load balancer", "172.16.0.100 -> 198.51.100.3:80", "silence"},
		{"policy Local without local endpoints still serves this node's pods", "10.10.10.7 -> 198.51.100.3:80", "forward 10.10.20.2:80"},
		{"no endpoints at all is a refusal: NodePort", "172.16.0.100 -> 10.20.30.62:30083", "refuse"},
		{"no endpoints at all is a refusal: load balancer", "172.16.0.100 -> 198.51.100.4:80", "refuse"},
		{"no endpoints at all is a refusal: external address", "172.16.0.100 -> 192.0.2.4:80", "refuse"},
		{"a source range lets its own in", "203.0.113.9 -> 198.51.100.5:80", "forward 10.10.10.2:80"},
		{"pods may be in it", "10.10.10.7 -> 198.51.100.5:80", "forward 10.10.10.2:80"},
		{"others meet silence", "172.16.0.100 -> 198.51.100.5:80", "silence"},
		{"the node too, if it is not in the list", "10.20.30.62 -> 198.51.100.5:80", "silence"},
		{"the ranges do not guard the NodePort", "172.16.0.100 -> 10.20.30.62:30084", "forward 10.10.10.2:80"},
		{"nor the ClusterIP", "172.16.0.100 -> 10.100.0.5:80", "forward 10.10.10.2:80"},
		{"ranges of one family shut the other", "fd00:16::1 -> [fd00:99::6]:80", "silence"},
		{"and serve their own", "203.0.113.9 -> 198.51.100.6:80", "forward 10.10.10.2:80"},
		{"the node's own address as a load balancer's", "172.16.0.100 -> 10.20.30.62:443", "forward 10.10.10.2:443"},
		{"leaves the node's other ports alone", "172.16.0.100 -> 10.20.30.62:22", "pass"},
		{"and its ping", "172.16.0.100 -> 10.20.30.62/ICMP", "pass"},
		{"the node's second address as external", "172.16.0.100 -> 10.99.0.1:443", "forward 10.10.10.2:443"},
		{"a pod's address cannot be stolen by an external one", "10.10.10.7 -> 10.10.10.50:80", "pass"},
	})
}

func TestTopology(t *testing.T) {
	check(t, []string{
		"zoned vip=10.100.0.1 ports=80",
		"zoned <- 10.10.20.1:80>a 10.10.20.2:80>b 10.10.20.3:80>a,b",
		"half vip=10.100.0.2 ports=80",
		"half <- 10.10.20.1:80>a 10.10.20.2:80",
		"other vip=10.100.0.3 ports=80",
		"other <- 10.10.20.1:80>b 10.10.20.2:80>c",
		"noded vip=10.100.0.4 ports=80",
		"noded <- 10.10.10.1:80>a>>kubminion1 10.10.20.2:80>a>>kubminion2",
		"elsenode vip=10.100.0.5 ports=80",
		"elsenode <- 10.10.20.1:80>a>>kubminion2 10.10.20.2:80>b>>kubminion3",
		"dead vip=10.100.0.6 ports=80",
		"dead <- 10.10.20.1:80>a!down 10.10.20.2:80>b",
		"wishzone vip=10.100.0.7 ports=80 prefer=zone",
		"wishzone <- 10.10.20.1:80%a 10.10.20.2:80%b",
		"wishnone vip=10.100.0.8 ports=80 prefer=zone",
		"wishnone <- 10.10.20.1:80%c 10.10.20.2:80%b",
		"wishnode vip=10.100.0.9 ports=80 prefer=node",
		"wishnode <- 10.10.10.1:80%b 10.10.20.2:80%a",
		"wishaway vip=10.100.0.10 ports=80 prefer=node",
		"wishaway <- 10.10.20.1:80%b 10.10.20.2:80%a",
		"hintwins vip=10.100.0.11 ports=80 prefer=node",
		"hintwins <- 10.10.10.1:80%b>b 10.10.20.2:80%a>a",
		"np ports=80+30080 lb=198.51.100.1",
		"np <- 10.10.20.1:80>a 10.10.20.2:80>b",
		"locally ports=80+30081 vip=10.100.0.12 itp=local",
		"locally <- 10.10.10.1:80>b 10.10.20.2:80>a",
	}, []row{
		{"zone hints keep traffic in the zone", "10.10.10.7 -> 10.100.0.1:80", "forward 10.10.20.1:80 10.10.20.3:80"},
		{"one endpoint without a hint: hints are not used", "10.10.10.7 -> 10.100.0.2:80", "forward 10.10.20.1:80 10.10.20.2:80"},
		{"no hint for our zone: they are not used", "10.10.10.7 -> 10.100.0.3:80", "forward 10.10.20.1:80 10.10.20.2:80"},
		{"a hint for the node comes before the zone", "10.10.10.7 -> 10.100.0.4:80", "forward 10.10.10.1:80"},
		{"no hint for our node: the zone decides", "10.10.10.7 -> 10.100.0.5:80", "forward 10.10.20.1:80"},
		{"only ready endpoints' hints count", "10.10.10.7 -> 10.100.0.6:80", "forward 10.10.20.2:80"},
		{"PreferSameZone without hints looks at zones", "10.10.10.7 -> 10.100.0.7:80", "forward 10.10.20.1:80"},
		{"and takes all if none is near", "10.10.10.7 -> 10.100.0.8:80", "forward 10.10.20.1:80 10.10.20.2:80"},
		{"PreferSameNode takes this node's", "10.10.10.7 -> 10.100.0.9:80", "forward 10.10.10.1:80"},
		{"else the zone's", "10.10.10.7 -> 10.100.0.10:80", "forward 10.10.20.2:80"},
		{"hints win over the wish", "10.10.10.7 -> 10.100.0.11:80", "forward 10.10.20.2:80"},
		{"hints hold for NodePorts", "10.10.10.7 -> 10.20.30.62:30080", "forward 10.10.20.1:80"},
		{"and load balancers", "172.16.0.100 -> 198.51.100.1:80", "forward 10.10.20.1:80*"},
		{"policy Local does not ask for hints", "10.10.10.7 -> 10.100.0.12:80", "forward 10.10.10.1:80"},
	})
}

// A node that does not know its pods: who is not the node itself is elsewhere, endpoints are here by its name.
func TestUnknownPods(t *testing.T) {
	o := options()
	o.Node.PodSubnets = nil
	checkOn(t, o, []string{
		"open vip=10.100.0.1 lb=198.51.100.1 ext=192.0.2.1 ports=80+30080", "open <- 10.10.10.2:80@kubminion1 10.10.20.2:80@kubminion2",
		"kept vip=10.100.0.2 lb=198.51.100.2 ext=192.0.2.2 ports=80+30081 etp=local", "kept <- 10.10.10.2:80@kubminion1 10.10.20.2:80@kubminion2",
		"away lb=198.51.100.3 ports=80+30082 etp=local", "away <- 10.10.20.2:80@kubminion2",
		"self vip=10.100.0.4 ports=80 itp=local", "self <- 10.10.10.2:80@kubminion1 10.10.20.2:80@kubminion2",
		"host ports=80+30083", "host <- 10.20.30.62:80 10.20.30.63:80",
		"all ports=80+30084 etp=local", "all <- 10.10.10.2:80@kubminion1",
	}, []row{
		{"a NodePort comes back this way from wherever", "172.16.0.100 -> 10.20.30.62:30080", "forward 10.10.10.2:80* 10.10.20.2:80*"},
		{"so does a load balancer's address", "172.16.0.100 -> 198.51.100.1:80", "forward 10.10.10.2:80* 10.10.20.2:80*"},
		{"and an external one", "172.16.0.100 -> 192.0.2.1:80", "forward 10.10.10.2:80* 10.10.20.2:80*"},
		{"but not from the node itself", "10.20.30.62 -> 10.20.30.62:30080", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"nor to a process of the node", "172.16.0.100 -> 10.20.30.62:30083", "forward 10.20.30.62:80 10.20.30.63:80*"},
		{"a ClusterIP leaves the source of what may be a pod alone", "10.10.10.7 -> 10.100.0.1:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"external policy Local: endpoints here by the node's name, the source stays", "172.16.0.100 -> 198.51.100.2:80", "forward 10.10.10.2:80"},
		{"also at a NodePort", "172.16.0.100 -> 10.20.30.62:30081", "forward 10.10.10.2:80"},
		{"also if all are here", "172.16.0.100 -> 10.20.30.62:30084", "forward 10.10.10.2:80"},
		{"and silence if none is", "172.16.0.100 -> 198.51.100.3:80", "silence"},
		{"while the node itself has all", "10.20.30.62 -> 198.51.100.3:80", "forward 10.10.20.2:80"},
		{"internal policy Local goes by the name too", "10.10.10.7 -> 10.100.0.4:80", "forward 10.10.10.2:80"},
		{"what may be a pod balanced to itself is rewritten", "10.10.10.2 -> 10.100.0.4:80", "forward 10.10.10.2:80*"},
	})
}

// A node of which nothing is known serves, but rewrites nothing it cannot be sure of.
func TestUnknownNode(t *testing.T) {
	tab := Compute(world(t, []string{"web vip=10.100.0.1 ports=80", "web <- 10.10.10.2:80 10.10.20.2:80"}), Options{})
	for packet, want := range map[string]string{
		"172.16.0.100 -> 10.100.0.1:80": "forward 10.10.10.2:80 10.10.20.2:80",
		"10.10.10.2 -> 10.100.0.1:80":   "forward 10.10.10.2:80* 10.10.20.2:80",
		"10.10.10.2 -> 10.100.0.2:80":   "pass",
	} {
		if got := tell(t, tab, packet); got != want {
			t.Errorf("%s: got %s, want %s", packet, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	tab := Compute(world(t, []string{
		"a vip=10.200.0.1 ports=80", "b vip=10.100.0.1 ports=80", "c vip=10.100.0.1 ports=80", "d ext=10.100.0.1 ports=80", "e ext=10.10.10.9 ports=1",
		"f vip=10.200.0.1 ports=80", "g ext=10.10.10.9 ports=1",
	}), options())
	for _, key := range []string{"10.200.0.1:80", "10.10.10.9:1"} {
		ap := netip.MustParseAddrPort(key)
		if p, ok := tab.Portals[Key{ap.Addr(), service.TCP, ap.Port()}]; ok {
			t.Errorf("%s is nobody's to have, but %s has it", key, p.Service)
		}
	}
	var got []string
	for _, r := range tab.Refused {
		got = append(got, r.String())
	}
	want := []string{
		"TCP 10.200.0.1:80 of default/a: outside the portal net 10.100.0.0/16, fd00:100::/112",
		"TCP 10.100.0.1:80 of default/c: ClusterIP of default/b",
		"TCP 10.100.0.1:80 of default/d: ClusterIP of default/b",
		"TCP 10.10.10.9:1 of default/e: an address of this node's pods",
		"TCP 10.200.0.1:80 of default/f: outside the portal net 10.100.0.0/16, fd00:100::/112",
		"TCP 10.10.10.9:1 of default/g: an address of this node's pods",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A NodePort that no address answers is not passed over in silence.
func TestNodePortsWithoutAnAddress(t *testing.T) {
	services := []string{"np vip=10.100.0.1 ports=80+30000", "six vip=fd00:100::2 ports=UDP/80+30000", "any ports=SCTP/80+30000"}
	four := options()
	four.Node.Addresses = addrList("10.20.30.62")
	none := options()
	none.Node.Addresses = nil
	outside := options()
	outside.NodePortAddrs = NodePortAddrs(outside.Node, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	chosen := options()
	chosen.NodePortAddrs = NodePortAddrs(chosen.Node, []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16"), netip.MustParsePrefix("fd00::/16")})
	const why = " this node has no address that answers NodePorts of its family"
	everything := "SCTP 0.0.0.0:30000 of default/any:" + why + "\nTCP 0.0.0.0:30000 of default/np:" + why + "\nUDP [::]:30000 of default/six:" + why
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"addresses of both families", options(), ""},
		{"only IPv4: a service that speaks only IPv6 is not answered", four, "UDP [::]:30000 of default/six:" + why},
		{"no address", none, everything},
		{"addresses, but none where NodePorts are wanted", outside, everything},
		{"one of each family where they are wanted", chosen, ""},
	} {
		var got []string
		for _, r := range Compute(world(t, services), tt.o).Refused {
			got = append(got, r.String())
		}
		if d := cmp.Diff(tt.want, strings.Join(got, "\n")); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
	checkOn(t, chosen, services, []row{
		{"the address that was chosen answers", "172.16.0.100 -> 10.99.0.1:30000", "refuse"},
		{"the first does not", "172.16.0.100 -> 10.20.30.62:30000", "pass"},
	})
}

// A Memo that saw a history must say the same as one that sees the last moment alone.
func TestMemoForgetsNothing(t *testing.T) {
	m := NewMemo(options())
	history := [][]string{
		{"a vip=10.100.0.1 ports=80", "a <- 10.10.10.1:80", "b vip=10.100.0.1 ports=80", "b <- 10.10.10.2:80"},
		{"b vip=10.100.0.1 ports=80", "b <- 10.10.10.2:80 10.10.10.3:80"},
		{"b vip=10.100.0.2 ports=80", "b <- 10.10.10.2:80 10.10.10.3:80", "a ext=10.100.0.2 ports=80"},
		{"b vip=10.100.0.2 ports=80 etp=local", "a ext=10.100.0.2 ports=80", "c vip=10.200.0.1 ports=80"},
		{"b vip=10.100.0.2 ports=80 affinity=5s", "a ext=10.100.0.2 ports=80"},
		{},
	}
	for i, lines := range history {
		s := world(t, lines)
		if d := cmp.Diff(text(Compute(s, options())), text(m.Compute(s))); d != "" {
			t.Errorf("moment %d (-fresh +memo):\n%s", i, d)
		}
	}
}

func text(t Table) string {
	var b strings.Builder
	for k, p := range t.Portals {
		fmt.Fprintf(&b, "%s %v\n", k, p)
	}
	lines := strings.Split(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + fmt.Sprint(t.Refused)
}

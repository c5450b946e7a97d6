// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"net/netip"
	"testing"
)

// KEP-1669: endpoints that end serve as long as they can, but only when there is nothing better.
func TestTerminatingEndpoints(t *testing.T) {
	check(t, []string{
		"ready vip=10.100.1.1 ports=80", "ready <- 10.10.10.2:80!ending 10.10.20.2:80",
		"dying vip=10.100.1.2 ports=80", "dying <- 10.10.10.2:80!ending 10.10.20.2:80!ending",
		"half vip=10.100.1.3 ports=80", "half <- 10.10.10.2:80!ending 10.10.20.2:80!gone",
		"gone vip=10.100.1.4 ports=80", "gone <- 10.10.10.2:80!gone 10.10.20.2:80!gone",
		"sick vip=10.100.1.5 ports=80", "sick <- 10.10.10.2:80!ending 10.10.20.2:80!down",
		"leaving vip=10.100.1.6 ports=80", "leaving <- 10.10.10.2:80!leaving 10.10.20.2:80!ending",
		"early vip=10.100.1.7 ports=80 notready", "early <- 10.10.10.2:80!down 10.10.20.2:80!ending",
		"xready ext=192.0.2.1 ports=80 etp=local", "xready <- 10.10.10.2:80!ending 10.10.20.2:80",
		"xdying ext=192.0.2.2 ports=80 etp=local", "xdying <- 10.10.10.2:80!ending 10.10.20.2:80!ending",
		"xgone ext=192.0.2.3 ports=80 etp=local", "xgone <- 10.10.10.2:80!gone 10.10.20.2:80",
		"xsick ext=192.0.2.4 ports=80 etp=local", "xsick <- 10.10.10.2:80!down 10.10.20.2:80!ending",
		"xall ext=192.0.2.5 ports=80 etp=local", "xall <- 10.10.10.2:80!gone 10.10.20.2:80!gone",
		"xboth ext=192.0.2.6 ports=80 etp=local", "xboth <- 10.10.10.2:80 10.10.10.3:80!ending 10.10.20.2:80",
		"ilocal vip=10.100.1.8 ports=80 itp=local", "ilocal <- 10.10.10.2:80!ending 10.10.20.2:80!ending",
		"igone vip=10.100.1.9 ports=80 itp=local", "igone <- 10.10.10.2:80!gone 10.10.20.2:80",
		"inone vip=10.100.1.10 ports=80 itp=local", "inone <- 10.10.10.2:80!down 10.10.20.2:80!gone",
		"iready vip=10.100.1.11 ports=80 itp=local", "iready <- 10.10.10.2:80 10.10.10.3:80!ending",
		"both vip=10.100.1.12 ext=192.0.2.7 ports=80 itp=local etp=local", "both <- 10.10.10.2:80!ending 10.10.20.2:80",
	}, []row{
		{"one that is ready leaves nothing to those that end", "10.10.10.7 -> 10.100.1.1:80", "forward 10.10.20.2:80"},
		{"when all end, all serve", "10.10.10.7 -> 10.100.1.2:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"of these, only those that still can", "10.10.10.7 -> 10.100.1.3:80", "forward 10.10.10.2:80"},
		{"when none can: refused", "10.10.10.7 -> 10.100.1.4:80", "refuse"},
		{"one that ends is better than one that is not ready", "10.10.10.7 -> 10.100.1.5:80", "forward 10.10.10.2:80"},
		{"one that ends and is called ready, as publishNotReadyAddresses has it, is ready", "10.10.10.7 -> 10.100.1.6:80", "forward 10.10.10.2:80"},
		{"publishNotReadyAddresses prefers what is not ready to what ends", "10.10.10.7 -> 10.100.1.7:80", "forward 10.10.10.2:80"},
		{"a VIP with endpoints that end answers ping", "10.10.10.7 -> 10.100.1.2/ICMP", "answer"},
		{"a VIP whose endpoints are gone does not", "10.10.10.7 -> 10.100.1.4/ICMP", "refuse"},
		{"external policy Local: a local one that ends serves outsiders, whoever is ready elsewhere", "172.16.0.100 -> 192.0.2.1:80", "forward 10.10.10.2:80"},
		{"while pods here get the one that is ready", "10.10.10.7 -> 192.0.2.1:80", "forward 10.10.20.2:80"},
		{"when all end, outsiders get the local one", "172.16.0.100 -> 192.0.2.2:80", "forward 10.10.10.2:80"},
		{"and pods here all", "10.10.10.7 -> 192.0.2.2:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"a local one that is gone counts as none: silence", "172.16.0.100 -> 192.0.2.3:80", "silence"},
		{"so does one that is not ready, if anybody elsewhere still serves", "172.16.0.100 -> 192.0.2.4:80", "silence"},
		{"if nobody does, it is a refusal", "172.16.0.100 -> 192.0.2.5:80", "refuse"},
		{"a local one that is ready leaves nothing to a local one that ends", "172.16.0.100 -> 192.0.2.6:80", "forward 10.10.10.2:80"},
		{"internal policy Local: the local one that ends", "10.10.10.7 -> 10.100.1.8:80", "forward 10.10.10.2:80"},
		{"internal policy Local: gone here, ready elsewhere: silence", "10.10.10.7 -> 10.100.1.9:80", "silence"},
		{"internal policy Local: nobody anywhere: refused", "10.10.10.7 -> 10.100.1.10:80", "refuse"},
		{"internal policy Local: the ready one of two here", "10.10.10.7 -> 10.100.1.11:80", "forward 10.10.10.2:80"},
		{"both policies Local: inside by the one", "10.10.10.7 -> 10.100.1.12:80", "forward 10.10.10.2:80"},
		{"and outside by the other", "172.16.0.100 -> 192.0.2.7:80", "forward 10.10.10.2:80"},
	})
}

// KEP-2433, KEP-4444, KEP-3015: hints and wishes.
func TestHintsAndWishes(t *testing.T) {
	lines := []string{
		"sick vip=10.100.2.1 ports=80", "sick <- 10.10.20.1:80>a 10.10.20.2:80>b 10.10.20.3:80!down",
		"dual vip=10.100.2.2,fd00:100::22 ports=80", "dual <- 10.10.20.1:80>a 10.10.20.2:80>b [fd00:10:20::1]:80>a [fd00:10:20::2]:80",
		"nodehalf vip=10.100.2.3 ports=80", "nodehalf <- 10.10.10.1:80>a>>kubminion1 10.10.20.2:80>a 10.10.20.3:80>b",
		"nodes vip=10.100.2.4 ports=80", "nodes <- 10.10.10.1:80>b>>kubminion1 10.10.20.2:80>a>>kubminion2",
		"many vip=10.100.2.5 ports=80", "many <- 10.10.20.1:80>b,c 10.10.20.2:80>c,a 10.10.20.3:80>a",
		"ending vip=10.100.2.6 ports=80", "ending <- 10.10.20.1:80>a!ending 10.10.20.2:80>b!ending",
		"kept ext=192.0.2.1 ports=80 etp=local", "kept <- 10.10.10.1:80>b 10.10.10.2:80>a 10.10.20.2:80>a",
		"samenode vip=10.100.2.7 ports=80 prefer=node", "samenode <- 10.10.10.1:80%b!down 10.10.20.2:80%a 10.10.20.3:80%b",
		"sameelse vip=10.100.2.8 ports=80 prefer=node", "sameelse <- 10.10.20.2:80%c 10.10.20.3:80%b",
		"samelocal vip=10.100.2.9 ports=80 prefer=zone itp=local", "samelocal <- 10.10.10.1:80%b 10.10.20.2:80%a",
		"zoneless vip=10.100.2.10 ports=80 prefer=zone", "zoneless <- 10.10.20.2:80 10.10.20.3:80",
		"named vip=10.100.2.11 ports=80 prefer=node", "named <- 10.99.0.9:80@kubminion1%b 10.10.20.3:80%a",
		"lonely vip=10.100.2.12 ports=80", "lonely <- 10.10.20.1:80>a",
		"stranger vip=10.100.2.13 ports=80", "stranger <- 10.10.20.1:80>z",
	}
	check(t, lines, []row{
		{"an endpoint that is not ready needs no hint", "10.10.10.7 -> 10.100.2.1:80", "forward 10.10.20.1:80"},
		{"each family has its own hints: complete", "10.10.10.7 -> 10.100.2.2:80", "forward 10.10.20.1:80"},
		{"each family has its own hints: incomplete", "fd00:10:10::7 -> [fd00:100::22]:80", "forward [fd00:10:20::1]:80 [fd00:10:20::2]:80"},
		{"node hints on some only are not used; the zones' are", "10.10.10.7 -> 10.100.2.3:80", "forward 10.10.10.1:80 10.10.20.2:80"},
		{"a hint for the node beats one for the zone", "10.10.10.7 -> 10.100.2.4:80", "forward 10.10.10.1:80"},
		{"an endpoint may be meant for several zones", "10.10.10.7 -> 10.100.2.5:80", "forward 10.10.20.2:80 10.10.20.3:80"},
		{"hints hold among endpoints that end", "10.10.10.7 -> 10.100.2.6:80", "forward 10.10.20.1:80"},
		{"external policy Local from outside: all of this node, whatever the hints", "172.16.0.100 -> 192.0.2.1:80", "forward 10.10.10.1:80 10.10.10.2:80"},
		{"and by the hints from inside", "10.10.10.7 -> 192.0.2.1:80", "forward 10.10.10.2:80 10.10.20.2:80"},
		{"PreferSameNode, and the one here is not ready: the zone", "10.10.10.7 -> 10.100.2.7:80", "forward 10.10.20.2:80"},
		{"PreferSameNode, and nobody is near: all", "10.10.10.7 -> 10.100.2.8:80", "forward 10.10.20.2:80 10.10.20.3:80"},
		{"policy Local comes before PreferSameZone", "10.10.10.7 -> 10.100.2.9:80", "forward 10.10.10.1:80"},
		{"PreferSameZone without zones: all", "10.10.10.7 -> 10.100.2.10:80", "forward 10.10.20.2:80 10.10.20.3:80"},
		{"PreferSameNode by the node's name", "10.10.10.7 -> 10.100.2.11:80", "forward 10.99.0.9:80"},
		{"one endpoint with a hint for us", "10.10.10.7 -> 10.100.2.12:80", "forward 10.10.20.1:80"},
		{"one endpoint meant for others is used all the same", "10.10.10.7 -> 10.100.2.13:80", "forward 10.10.20.1:80"},
	})
	nowhere := options()
	nowhere.Zone = ""
	checkOn(t, nowhere, lines, []row{
		{"a node without a zone uses no zone hints", "10.10.10.7 -> 10.100.2.1:80", "forward 10.10.20.1:80 10.10.20.2:80"},
		{"but those for nodes", "10.10.10.7 -> 10.100.2.4:80", "forward 10.10.10.1:80"},
		{"PreferSameZone means nothing to it", "10.10.10.7 -> 10.100.2.10:80", "forward 10.10.20.2:80 10.10.20.3:80"},
		{"PreferSameNode does", "10.10.10.7 -> 10.100.2.11:80", "forward 10.99.0.9:80"},
	})
}

func TestBothFamilies(t *testing.T) {
	check(t, []string{
		"dual vip=10.100.3.1,fd00:100::31 ports=80+30001", "dual <- 10.10.10.2:80 10.10.20.2:80 [fd00:10:10::2]:80 [fd00:10:20::2]:80",
		"six vip=fd00:100::32 ports=80+30002", "six <- [fd00:10:20::2]:80",
		"four vip=10.100.3.3 ports=80+30003", "four <- 10.10.20.2:80",
		"fourfirst vip=10.100.3.4,fd00:100::34 ports=80", "fourfirst <- 10.10.20.2:80",
		"local vip=fd00:100::35 ext=2001:db8::1 ports=80 etp=local itp=local", "local <- [fd00:10:10::2]:80 [fd00:10:20::2]:80",
		"fenced lb=2001:db8::2 ports=80 from=2001:db8:1::/48", "fenced <- [fd00:10:10::2]:80",
		"open lb=2001:db8::3,198.51.100.3 ports=80 from=0.0.0.0/0,::/0", "open <- [fd00:10:10::2]:80 10.10.10.2:80",
		"udp vip=fd00:100::36 ports=UDP/53", "udp <- [fd00:10:20::2]:5353",
		"dualtwo vip=10.100.3.7,fd00:100::37 ports=80+30007", "dualtwo <- 10.10.10.2:80 [fd00:10:10::2]:80",
	}, []row{
		{"a pod balanced to itself over IPv6 is rewritten", "fd00:10:10::2 -> [fd00:100::37]:80", "forward [fd00:10:10::2]:80*"},
		{"a dual-stack service over IPv4", "10.10.10.7 -> 10.100.3.7:80", "forward 10.10.10.2:80"},
		{"and over IPv6", "fd00:10:10::7 -> [fd00:100::37]:80", "forward [fd00:10:10::2]:80"},
		{"its NodePort over IPv4", "172.16.0.100 -> 10.20.30.62:30007", "forward 10.10.10.2:80"},
		{"and over IPv6", "2001:db8::100 -> [fd00:20::62]:30007", "forward [fd00:10:10::2]:80"},
		{"the NodePort of an IPv6 service is none of IPv4", "172.16.0.100 -> 10.20.30.62:30002", "pass"},
		{"but of IPv6", "2001:db8::100 -> [fd00:20::62]:30002", "forward [fd00:10:20::2]:80*"},
		{"the NodePort of an IPv4 service is none of IPv6", "2001:db8::100 -> [fd00:20::62]:30003", "pass"},
		{"but of IPv4", "172.16.0.100 -> 10.20.30.62:30003", "forward 10.10.20.2:80*"},
		{"a family without endpoints is refused while the other serves", "fd00:10:10::7 -> [fd00:100::34]:80", "refuse"},
		{"a family without endpoints does not answer ping", "fd00:10:10::7 -> fd00:100::34/ICMPv6", "refuse"},
		{"while the other does", "10.10.10.7 -> 10.100.3.4/ICMP", "answer"},
		{"external policy Local over IPv6 keeps the source", "2001:db8::100 -> [2001:db8::1]:80", "forward [fd00:10:10::2]:80"},
		{"internal policy Local over IPv6", "fd00:10:10::7 -> [fd00:100::35]:80", "forward [fd00:10:10::2]:80"},
		{"source ranges over IPv6: inside", "2001:db8:1::9 -> [2001:db8::2]:80", "forward [fd00:10:10::2]:80"},
		{"source ranges over IPv6: not inside", "2001:db8:2::9 -> [2001:db8::2]:80", "silence"},
		{"a range of everybody is for everybody, IPv6", "2001:db8:2::9 -> [2001:db8::3]:80", "forward [fd00:10:10::2]:80"},
		{"a range of everybody is for everybody, IPv4", "172.16.0.100 -> 198.51.100.3:80", "forward 10.10.10.2:80"},
		{"UDP over IPv6", "fd00:10:10::7 -> [fd00:100::36]:53/UDP", "forward [fd00:10:20::2]:5353"},
		{"and TCP on its number is refused", "fd00:10:10::7 -> [fd00:100::36]:53", "refuse"},
	})
}

func TestPortsAndNames(t *testing.T) {
	lines := []string{
		"three vip=10.100.4.1 ports=http:80,https:443,metrics:9090",
		"three:http <- 10.10.20.1:8080", "three:https <- 10.10.20.1:8443 10.10.20.2:8443", "three:nonsense <- 10.10.20.3:1",
		"same vip=10.100.4.2 ports=a:80,b:81", "same:a <- 10.10.20.1:8080", "same:b <- 10.10.20.1:8080",
		"sharea vip=10.100.4.3 ports=80", "sharea <- 10.10.20.1:80", "shareb vip=10.100.4.3 ports=81", "shareb <- 10.10.20.2:80",
		"lba lb=198.51.100.1 ports=80", "lba <- 10.10.20.1:80", "lbb lb=198.51.100.1 ports=UDP/80,TCP/81", "lbb <- 10.10.20.2:80",
		"claim lb=10.100.4.1 ports=80", "claim <- 10.10.20.66:80",
		"npa ports=80+30000", "npa <- 10.10.20.1:80", "npb ports=80+30000", "npb <- 10.10.20.2:80", "npc ports=UDP/80+30000", "npc <- 10.10.20.3:80",
		"nps ports=SCTP/80+30001", "nps <- 10.10.20.3:80",
		"sticky vip=10.100.4.5 ports=80 affinity=3h", "sticky <- 10.10.20.1:80 10.10.20.2:80",
		"stickyout ext=192.0.2.5 ports=80 affinity=3h etp=local", "stickyout <- 10.10.10.1:80 10.10.20.2:80",
		"fencedaway lb=198.51.100.4 ports=80 from=203.0.113.0/24 etp=local", "fencedaway <- 10.10.20.2:80",
		"fencednone lb=198.51.100.5 ports=80 from=203.0.113.0/24",
		"extshare1 ext=192.0.2.9 ports=80", "extshare1 <- 10.10.20.1:80", "extshare2 ext=192.0.2.9 ports=443", "extshare2 <- 10.10.20.2:443",
		"lbempty lb=198.51.100.6 ports=80", "lbfull lb=198.51.100.6 ports=81", "lbfull <- 10.10.20.2:80",
	}
	check(t, lines, []row{
		{"each port of a service has its own endpoints: the first", "10.10.10.7 -> 10.100.4.1:80", "forward 10.10.20.1:8080"},
		{"each port of a service has its own endpoints: the second", "10.10.10.7 -> 10.100.4.1:443", "forward 10.10.20.1:8443 10.10.20.2:8443"},
		{"each port of a service has its own endpoints: the third has none", "10.10.10.7 -> 10.100.4.1:9090", "refuse"},
		{"endpoints of a port name that the service lacks serve nobody", "10.10.10.7 -> 10.100.4.1:1", "refuse"},
		{"a VIP with one empty port answers ping", "10.10.10.7 -> 10.100.4.1/ICMP", "answer"},
		{"two ports may lead to one target: the first", "10.10.10.7 -> 10.100.4.2:80", "forward 10.10.20.1:8080"},
		{"two ports may lead to one target: the second", "10.10.10.7 -> 10.100.4.2:81", "forward 10.10.20.1:8080"},
		{"two services may share an address by port: the one", "10.10.10.7 -> 10.100.4.3:80", "forward 10.10.20.1:80"},
		{"two services may share an address by port: the other", "10.10.10.7 -> 10.100.4.3:81", "forward 10.10.20.2:80"},
		{"and a load balancer's: TCP", "172.16.0.100 -> 198.51.100.1:80", "forward 10.10.20.1:80*"},
		{"and a load balancer's: UDP", "172.16.0.100 -> 198.51.100.1:80/UDP", "forward 10.10.20.2:80*"},
		{"and a load balancer's: neither has it", "172.16.0.100 -> 198.51.100.1:82", "refuse"},
		{"and an external one", "172.16.0.100 -> 192.0.2.9:443", "forward 10.10.20.2:443*"},
		{"a load balancer's address answers ping if any of its services has an endpoint", "172.16.0.100 -> 198.51.100.6/ICMP", "answer"},
		{"and refuses for the one that has none", "172.16.0.100 -> 198.51.100.6:80", "refuse"},
		{"a load balancer's address that is a ClusterIP is the ClusterIP's", "10.10.10.7 -> 10.100.4.1:80", "forward 10.10.20.1:8080"},
		{"two services with one NodePort: the first by name", "10.10.10.7 -> 10.20.30.62:30000", "forward 10.10.20.1:80"},
		{"the number under UDP is another NodePort", "10.10.10.7 -> 10.20.30.62:30000/UDP", "forward 10.10.20.3:80"},
		{"NodePorts speak SCTP", "10.10.10.7 -> 10.20.30.62:30001/SCTP", "forward 10.10.20.3:80"},
		{"and that number is free under TCP", "10.10.10.7 -> 10.20.30.62:30001", "pass"},
		{"NodePorts do not answer on loopback", "127.0.0.1 -> 127.0.0.1:30000", "pass"},
		{"with session affinity any endpoint may be the one", "10.10.10.7 -> 10.100.4.5:80", "forward 10.10.20.1:80 10.10.20.2:80"},
		{"and under policy Local any local one", "172.16.0.100 -> 192.0.2.5:80", "forward 10.10.10.1:80"},
		{"a source range does not make up for a missing local endpoint", "203.0.113.1 -> 198.51.100.4:80", "silence"},
		{"nor a local client for a missing range", "10.10.10.7 -> 198.51.100.4:80", "silence"},
		{"in the range, without endpoints: refused", "203.0.113.1 -> 198.51.100.5:80", "refuse"},
		{"outside it: silence, whatever is behind", "172.16.0.100 -> 198.51.100.5:80", "silence"},
		{"ranges guard ports, not the address: another port is refused", "172.16.0.100 -> 198.51.100.5:81", "refuse"},
	})
}

// Which node addresses answer NodePorts, and which addresses are the portal net's, is the node's matter.
func TestNodesThatAreSetUpOtherwise(t *testing.T) {
	lines := []string{"np vip=10.100.5.1 ports=80+30000", "np <- 10.10.10.2:80", "far vip=172.30.0.1 ports=80", "far <- 10.10.20.2:80"}
	all := options()
	all.NodePortAddrs = all.Node.Addresses
	localhost := options()
	localhost.Localhost = true
	none := options()
	none.NodePortAddrs = []netip.Addr{}
	moved := options()
	moved.Nets = []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("172.30.0.0/24")}
	unbound := options()
	unbound.Nets = nil
	for _, node := range []struct {
		o    Options
		rows []row
	}{
		{all, []row{
			{"all addresses, if they are asked for: the first", "172.16.0.100 -> 10.20.30.62:30000", "forward 10.10.10.2:80"},
			{"all addresses, if they are asked for: the second", "172.16.0.100 -> 10.99.0.1:30000", "forward 10.10.10.2:80"},
			{"all addresses, but no others", "172.16.0.100 -> 10.20.30.63:30000", "pass"},
		}},
		{localhost, []row{
			{"the node's loopback address, if that is asked for: nobody else could answer it", "127.0.0.1 -> 127.0.0.1:30000", "forward 10.10.10.2:80*"},
			{"besides the first address", "172.16.0.100 -> 10.20.30.62:30000", "forward 10.10.10.2:80"},
			{"its other ports are the node's", "127.0.0.1 -> 127.0.0.1:30001", "pass"},
		}},
		{none, []row{
			{"no address at all", "172.16.0.100 -> 10.20.30.62:30000", "pass"},
			{"which leaves the VIP alone", "10.10.10.7 -> 10.100.5.1:80", "forward 10.10.10.2:80"},
		}},
		{moved, []row{
			{"a second ServiceCIDR is a portal net too", "10.10.10.7 -> 172.30.0.1:80", "forward 10.10.20.2:80"},
			{"with what nobody has of it refused", "10.10.10.7 -> 172.30.0.2:80", "refuse"},
			{"up to its last address", "10.10.10.7 -> 172.30.0.255:80", "refuse"},
			{"from its first", "10.10.10.7 -> 172.30.0.0:80/UDP", "refuse"},
			{"and what is next to it passed", "10.10.10.7 -> 172.30.1.0:80", "pass"},
		}},
		{unbound, []row{
			{"without a portal net every ClusterIP is served", "10.10.10.7 -> 172.30.0.1:80", "forward 10.10.20.2:80"},
			{"its other ports are refused", "10.10.10.7 -> 172.30.0.1:81", "refuse"},
			{"and unallocated addresses pass", "10.10.10.7 -> 172.30.0.2:80", "pass"},
		}},
	} {
		checkOn(t, node.o, lines, node.rows)
	}
	check(t, lines, []row{
		{"a ServiceCIDR that went takes its VIPs along", "10.10.10.7 -> 172.30.0.1:80", "pass"},
		{"an unallocated portal address under SCTP", "10.10.10.7 -> 10.100.5.2:80/SCTP", "refuse"},
		{"an unallocated portal address from the node", "10.20.30.62 -> 10.100.5.2:80", "refuse"},
		{"an unallocated portal address from outside", "172.16.0.100 -> 10.100.5.2:80/UDP", "refuse"},
		{"an unallocated IPv6 portal address does not answer ping", "fd00:10:10::7 -> fd00:100::77/ICMPv6", "refuse"},
	})
}

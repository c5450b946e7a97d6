// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

var vip = netip.MustParseAddrPort("10.100.87.105:80")

func (t *teller) theProxy() {
	t.say(`The service webfrontend, 10.100.87.105:80, has four backends, one pod on each node, on port 8080. portald reads
		Kubernetes manifests from a directory and answers the service on every node; first as in 2015, with a proxy.`)
	t.must(t.lab.StartMaster())
	for _, h := range t.lab.Nodes() {
		t.must(h.StartPortald("--mode=userspace"))
	}
	var err error
	t.web, err = t.lab.AddWebPods()
	t.must(err)
	node := t.lab.Hosts["kubminion1"]
	t.prompt(node.Place, node.Portald.Command+" &")
	t.must(t.answersEverywhere())
	t.run(node.Place, "ls "+lab.ServicesDir+"; grep addresses "+lab.ServicesDir+"/webfrontend.yaml")
	t.printf("\n")
	out := t.run(node.Place, "iptables -t nat -n -L KUBE-PORTALS-CONTAINER | tr -s ' '")
	out += t.run(node.Place, "iptables -t nat -n -L KUBE-PORTALS-HOST | tr -s ' '")
	t.check("the article's two chains are there: REDIRECT for pods, DNAT for the node itself",
		that(strings.Count(out, "\nREDIRECT ") == 3 && strings.Count(out, "\nDNAT ") == 3, "they are not"))
	t.printf("\n")
	out = t.run(node.Place, "grep -o 'msg=.*webfrontend.*' "+node.Portald.LogPath)
	t.check("the log tells of both portals of the service, for pods and for the node", that(strings.Count(out, "opened portal") == 2, "it does not"))

	t.say(`The article's three windows: the pod's veth, the node's ens18, and a curl in the pod.`)
	w := t.windows(node, t.web[0], t.web[0].Place)
	nodeAddr := node.Spec.Addr.Addr()
	t.check("the pod talks to the service address and to nobody else", all(w.veth, t.web[0].IP, vip))
	t.check("on the wire the node talks to a backend's port 8080", all(w.wire, nodeAddr, w.answer.Address))
	t.check("two connections: the backend saw the node, not the pod", that(w.answer.Client.Addr() == nodeAddr, "it saw %s", w.answer.Client))
	t.spread(t.web[0].Place)
}

func (t *teller) theKernel() {
	t.say(`The same manifests, portald's other mode, and its default: one nftables map from service to backend. No proxy,
		no second connection.`)
	node := t.lab.Hosts["kubminion1"]
	for _, h := range t.lab.Nodes() {
		t.must(h.Portald.Stop())
		t.must(h.StartPortald())
	}
	client, err := t.lab.AddPod(node, "client")
	t.must(err)
	t.prompt(node.Place, node.Portald.Command+" &")
	t.must(t.answersEverywhere())
	w := t.windows(node, client, client.Place)
	t.check("the pod talks to the service address", all(w.veth, client.IP, vip))
	t.check("on the wire it is the same connection, from the pod itself", all(w.wire, client.IP, w.answer.Address))
	t.check("the backend saw the pod's own address", that(w.answer.Client.Addr() == client.IP, "it saw %s", w.answer.Client))
	t.spread(client.Place)
	a, err := node.Ask(vip.String())
	t.check("the node itself is answered, too", errOr(err, that(a.Pod != "", "by nobody")))

	t.say(`The service network exists nowhere but on the nodes:`)
	mls := t.lab.MLS
	t.prompt(mls.Place, "ip route get 10.100.87.105")
	out, err := mls.Run("sh", "-c", "ip route get 10.100.87.105 2>&1")
	t.output(out)
	t.check("the switch has no route to it", that(err != nil && strings.Contains(out, "unreachable"), "it has"))
}

// answersEverywhere waits until every node has its portal, in the mode that portald was started in.
func (t *teller) answersEverywhere() error {
	for _, h := range t.lab.Nodes() {
		if err := place.Eventually(5*time.Second, func() error {
			if _, err := h.Portald.Running(); err != nil {
				return err
			}
			return h.Reaches(vip.String())
		}); err != nil {
			return fmt.Errorf("portal on %s: %w", h.Name, err)
		}
	}
	return nil
}

// windows is what was seen in the article's three terminal windows.
type windows struct {
	answer     place.Answer
	veth, wire []place.Packet
}

// windows asks the service until a backend on another node answers, and shows what passed then.
func (t *teller) windows(node *lab.Host, pod *lab.Pod, from *place.Place) windows {
	var w windows
	for range 20 {
		t.must(node.AwaitQuiet(lab.Uplink, 8080))
		veth, err := node.NewCapture(pod.Veth, 80)
		t.must(err)
		wire, err := node.NewCapture(lab.Uplink, 8080)
		t.must(err)
		var said string
		w.answer, said, err = t.ask(from, vip.String())
		t.must(err)
		w.veth, err = veth.Stop()
		t.must(err)
		w.wire, err = wire.Stop()
		t.must(err)
		if w.answer.Node == node.Name {
			continue
		}
		t.prompt(from, t.request(vip.String()))
		t.output(said)
		t.window(node, pod.Veth, w.veth)
		t.window(node, lab.Uplink, w.wire)
		return w
	}
	t.must(fmt.Errorf("20 requests, and none went to another node"))
	return w
}

func (t *teller) window(node *lab.Host, iface string, packets []place.Packet) {
	t.printf("%s\n", t.paint("36", "-- captured on "+iface+" of "+node.Name))
	for i, p := range packets {
		if i == 4 {
			t.printf("   ... %d packets in all\n", len(packets))
			break
		}
		t.output(p.String() + "\n")
	}
}

// all is an error unless there are packets, and every one goes between a and b, on one connection.
func all(packets []place.Packet, a netip.Addr, b netip.AddrPort) error {
	if len(packets) == 0 {
		return fmt.Errorf("nothing was captured")
	}
	for _, p := range packets {
		if !p.Between(netip.AddrPortFrom(a, 0), netip.AddrPortFrom(b.Addr().Unmap(), b.Port())) {
			return fmt.Errorf("there is %s", p)
		}
	}
	return that(place.Flows(packets) == 1, "there are %d connections", place.Flows(packets))
}

// spread asks the service a hundred times and shows who answered.
func (t *teller) spread(from *place.Place) {
	t.printf("\nA hundred requests from %s:\n", from.Name)
	count := map[string]int{}
	for range 100 {
		a, err := from.Ask(vip.String())
		t.must(err)
		count[a.Pod]++
	}
	var names []string
	for _, p := range t.web {
		names = append(names, p.Info.Name)
	}
	t.bars(names, count)
	t.check("they went to all four backends", that(len(count) == 4, "they went to %v", count))
}

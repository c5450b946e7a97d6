// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// The article's pod: two containers, each with a port published on the node.
var (
	web80   = lab.Container{Name: "webpod80", Port: 80, HostPort: 80}
	web8080 = lab.Container{Name: "webpod8080", Port: 8080, HostPort: 8080}
)

func (t *teller) thePod() {
	t.say(`The article's pod “webpod” on kubminion1: a pause process holds the network namespace, the CNI plugin bridge-l3
		connects it, and two containers, web servers on 80 and 8080, join it. The first pod also makes the bridge.`)
	node, outside := t.lab.Hosts["kubminion1"], t.lab.Hosts["outside"]
	pod, err := t.lab.AddPod(node, "webpod", web80, web8080)
	t.must(err)
	out := t.run(node.Place, "ip -br -4 addr")
	t.check("docker0 has the first address of the node's /24", that(strings.Contains(out, " 10.10.10.1/24"), "it has not"))
	out = t.run(pod.Place, "ip -br -4 addr; ip route")
	t.check("the pod has the next one, and the bridge as its default gateway",
		that(strings.Contains(out, "10.10.10.2/24") && strings.Contains(out, "default via 10.10.10.1 "), "it has\n%s", out))

	t.printf("\n")
	out = t.run(node.Place, fmt.Sprintf("readlink /proc/%d/ns/net /proc/%d/ns/net /proc/%d/ns/net",
		pod.Info.Pause, pod.Containers[web80.Name].Pid(), pod.Containers[web8080.Name].Pid()), "pause and the two containers")
	ns := strings.Fields(out)
	t.check("pause and both containers share one network namespace", that(len(ns) == 3 && ns[0] == ns[1] && ns[1] == ns[2], "they do not"))
	pod.Containers[web80.Name].Kill()
	t.check("kill a container: the other keeps the address and answers", outside.Reaches("10.10.10.2:8080"))
	t.must(pod.StartContainer(web80))
	t.check("a new container finds its place where the old one was", outside.Reaches("10.10.10.2:80"))

	t.say(`Pods are hosts on the network. From beyond the switch, by the pod's own address, and from the pod to there:`)
	a := t.fetch(outside.Place, "10.10.10.2:8080")
	t.check("outside reaches the pod, and is seen as itself", that(a.Client.Addr() == outside.Spec.Addr.Addr(), "the pod saw %s", a.Client))
	_, err = outside.Start("web", "l3ctl", "lab", "web", "--container=web", "--pod=none", "--port=8080")
	t.must(err)
	t.must(place.Eventually(5e9, func() error { return outside.Reaches("172.16.0.100:8080") }))
	t.printf("\n")
	a = t.fetch(pod.Place, "172.16.0.100:8080")
	t.check("the pod reaches outside, and is seen as itself", that(a.Client.Addr() == pod.IP, "outside saw %s", a.Client))
	if _, err := exec.LookPath("iptables-save"); err == nil {
		t.printf("\n")
		out := t.run(node.Place, "iptables-save -t nat")
		t.check("no rule masquerades it", that(!strings.Contains(out, "-A POSTROUTING"), "there is one"))
	}
}

func (t *teller) theHostPorts() {
	t.say(`The pod's containers ask for the node's ports 80 and 8080. The plugin portal maps them onto the pod's namespace:
		that is why pause holds it, and not one of the containers.`)
	node, outside, masta := t.lab.Hosts["kubminion1"], t.lab.Hosts["outside"].Place, t.lab.Hosts["kubmasta"].Place
	a := t.fetch(outside, "10.20.30.62:80")
	t.check("the node's port 80 is webpod80, for clients outside", that(a.Container == web80.Name, "it is %s", a.Container))
	b, err := masta.Ask("10.20.30.62:8080")
	t.check("the node's port 8080 is webpod8080, for other hosts", errOr(err, that(b.Container == web8080.Name, "it is %s", b.Container)))
	t.check("the pod saw who asked", that(a.Client.Addr() == t.lab.Hosts["outside"].Spec.Addr.Addr(), "it saw %s", a.Client))
	t.must(node.DeletePod("webpod"))
	t.check("with the pod they are gone", that(outside.Reaches("10.20.30.62:80") != nil, "port 80 still answers"))
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

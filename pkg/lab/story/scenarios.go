// SPDX-License-Identifier: Apache-2.0

package story

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// scenario is one thing that goes wrong, or is done, in a lab that runs.
type scenario struct {
	name, short string
	tell        func(*teller)
}

var scenarios = []scenario{
	{"link-failure", "a node's cable is pulled, and put back", (*teller).linkFailure},
	{"proxy-crash", "portald dies and comes back; services stay", (*teller).proxyCrash},
	{"portal-aggregate", "clients outside reach services by way of any node, and one goes", (*teller).portalAggregate},
	{"drain", "a node's service addresses leave before the node does", (*teller).drain},
}

// Scenarios lists the names that Run knows, each with a line about it.
func Scenarios() [][2]string {
	var out [][2]string
	for _, s := range scenarios {
		out = append(out, [2]string{s.name, s.short})
	}
	return out
}

// Run tells one scenario in a lab that has just come up, as Tell tells the story.
func Run(l *lab.Lab, name string, o Options) (err error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return fmt.Errorf("no scenario is called %q", name)
	}
	if err := l.StartEverything(); err != nil {
		return err
	}
	t := &teller{lab: l, out: o.Out, color: o.Color, start: time.Now()}
	defer func() { err = t.rescue(recover(), err) }()
	t.printf("%s\n", t.bold(name+": "+scenarios[i].short))
	t.must(t.allWell(10 * time.Second))
	for _, h := range l.Nodes() {
		t.must(place.Eventually(10*time.Second, func() error { return h.Reaches(webfrontend) }))
	}
	scenarios[i].tell(t)
	t.printf("\n%s\n", t.green(fmt.Sprintf("All %d claims were checked, and hold: %.1f s.", t.claims, time.Since(t.start).Seconds())))
	return nil
}

// see shows a command whose exit status says something, and returns what it said and whether the status was 0.
func (t *teller) see(p *place.Place, command string) (out string, well bool) {
	out, err := p.Run("sh", "-c", command)
	t.prompt(p, command)
	t.output(out)
	return out, err == nil
}

// allWell waits until l3ctl finds nothing wrong on any host.
func (t *teller) allWell(limit time.Duration) error {
	p := t.lab.Hosts["kubminion1"].Place
	return place.Eventually(limit, func() error { _, err := p.Run("l3ctl", "status", "--lab"); return err })
}

const webfrontend = "10.100.87.105:80"

func (t *teller) linkFailure() {
	node, other, mls := t.lab.Hosts["kubminion3"], t.lab.Hosts["kubminion1"], t.lab.MLS
	t.say(`Somebody pulls kubminion3's cable out of the switch.`)
	t.run(mls.Place, "ip link set "+lab.SwitchPort("kubminion3")+" down")
	begin := time.Now()
	err := place.Eventually(5*time.Second, func() error {
		_, err := node.Run("l3ctl", "status")
		return that(err != nil, "it says that all is well")
	})
	took := time.Since(begin)
	t.see(node.Place, "l3ctl status")
	t.check(fmt.Sprintf("the node itself says so after %d ms", took.Milliseconds()), err)
	t.say(`The others go on. The switch itself does not see the cable, only its own end of the segment: it holds the route
		until the session's time is over. BFD (routed --peer=mls,bfd=100ms) makes that a fraction of a second.`)
	for _, name := range []string{"kubminion2", "kubminion4"} {
		t.check(name+"'s pod still answers another node's", other.PodNamed("web8080-1").Reaches(t.lab.Hosts[name].PodNamed("web8080-"+name[len(name)-1:]).IP.String()+":8080"))
	}
	out, _ := t.see(other.Place, "l3ctl whois 10.10.30.2")
	t.check("l3ctl on another node knows whose the lost address is", that(strings.Contains(out, "is of the pods of another node: 10.10.30.0/24"), "it says\n%s", out))
	t.say(`It is plugged in again.`)
	t.run(mls.Place, "ip link set "+lab.SwitchPort("kubminion3")+" up")
	t.check("all is well again, by itself", t.allWell(20*time.Second))
	t.see(other.Place, "l3ctl status --lab")
}

func (t *teller) proxyCrash() {
	node := t.lab.Hosts["kubminion1"]
	pod := node.PodNamed("web8080-1").Place
	t.say(`portald programs the kernel, and is not in the way of a packet. It is killed without a warning:`)
	t.prompt(node.Place, fmt.Sprintf("kill -9 %d   # portald", node.Portald.Pid()))
	node.Portald.Kill()
	t.check("a pod still reaches the service", pod.Reaches(webfrontend))
	out, well := t.see(node.Place, "l3ctl status")
	t.check("l3ctl names what is missing, and does not call it broken", that(well && strings.Contains(out, "services stay as they were last programmed"), "it says\n%s", out))
	t.must(node.StartPortald())
	t.prompt(node.Place, node.Portald.Command+" &")
	t.check("started again, all is well", t.allWell(10*time.Second))

	t.say(`In userspace mode portald carries every connection itself, as in 2015. So its crash is felt; but its ports are
		the same after the restart, and the rules never went.`)
	t.must(node.Portald.Stop())
	t.must(node.StartPortald("--mode=userspace"))
	t.must(place.Eventually(10*time.Second, func() error {
		out, err := node.Run("l3ctl", "whois", webfrontend)
		return errors.Join(err, that(strings.Contains(out, "mode: userspace"), "%s", out), pod.Reaches(webfrontend))
	}))
	before := t.run(node.Place, "l3ctl whois "+webfrontend+" | grep proxy")
	t.prompt(node.Place, fmt.Sprintf("kill -9 %d   # portald", node.Portald.Pid()))
	node.Portald.Kill()
	t.check("a pod's connection fails while there is no portald", that(pod.Reaches(webfrontend) != nil, "it answers"))
	t.must(node.StartPortald("--mode=userspace"))
	t.check("started again, it answers", place.Eventually(10*time.Second, func() error {
		_, err := node.Run("l3ctl", "doctor")
		out, whois := node.Run("l3ctl", "whois", webfrontend) // portald is known to have taken up its ports
		return errors.Join(err, whois, that(strings.Contains(out, "mode: userspace"), "%s", out), pod.Reaches(webfrontend))
	}))
	after := t.run(node.Place, "l3ctl whois "+webfrontend+" | grep proxy")
	t.check("on the same port", that(before == after, "it was\n%s", before))
}

// announcePortals has the switch take in the portal net, and every node announce it.
func (t *teller) announcePortals() {
	t.must(t.lab.MLS.Accept(topology.PortalNet))
	for _, h := range t.lab.Nodes() {
		t.must(h.Routed.Stop())
		var err error
		h.Routed, err = h.Start("routed", "routed", "--peer="+topology.MLSName, "--announce-portal-net")
		t.must(err)
		t.prompt(h.Place, h.Routed.Command+" &")
	}
}

// ways is an error unless the switch has n ways to the portal net.
func (t *teller) ways(n int) func() error {
	return func() error {
		out, err := t.lab.MLS.Run("ip", "-4", "route", "show", topology.PortalNet)
		return errors.Join(err, that(strings.Count(out, "via ") == n, "the switch has\n%s", out))
	}
}

func (t *teller) portalAggregate() {
	outside := t.lab.Hosts["outside"].Place
	t.say(`How do clients outside reach services, and which node should the switch send them to? All of them: every node
		announces the portal net as one prefix, while portald has it programmed there.`)
	t.check("before, a client outside cannot reach the service", that(outside.Reaches(webfrontend) != nil, "it answers"))
	t.announcePortals()
	err := place.Eventually(15*time.Second, t.ways(4))
	t.run(t.lab.MLS.Place, "ip -4 route show "+topology.PortalNet)
	t.check("the switch has four ways to it", err)
	t.check("a client outside reaches the service", place.Eventually(5*time.Second, func() error { return outside.Reaches(webfrontend) }))
	out, well := t.see(outside, "l3ctl trace --lab here "+webfrontend)
	t.check("l3ctl knows the way", that(well, "it says\n%s", out))
	t.say(`kubminion2's portald goes. The kernel there answers as before, but nobody follows changes any more; so after five
		seconds routed takes the node's announcement back.`)
	t.must(t.lab.Hosts["kubminion2"].Portald.Stop())
	t.check("three ways are left", place.Eventually(15*time.Second, t.ways(3)))
	out, _ = t.see(t.lab.Hosts["kubminion2"].Place, "l3ctl status")
	t.check("l3ctl on the node says why", that(strings.Contains(out, "10.100.0.0/16 (portal net) is not announced"), "it says\n%s", out))
	for range 20 {
		t.must(outside.Reaches(webfrontend))
	}
	t.check("and the service answers, twenty times of twenty", nil)
}

// rehashes is how often the switch's ways change in a drain and its end: leaving, gone, back. One client asks at a time,
// so no more than one request is under way in each.
const rehashes = 3

func (t *teller) drain() {
	outside, node := t.lab.Hosts["outside"].Place, t.lab.Hosts["kubminion1"]
	t.announcePortals()
	t.must(place.Eventually(15*time.Second, t.ways(4)))
	t.must(place.Eventually(5*time.Second, func() error { return outside.Reaches(webfrontend) }))
	t.say(`A client outside asks the service all the time. Meanwhile kubminion1 is drained: its service addresses are
		announced as leaving, others are preferred, and then they are withdrawn. Its pods stay.`)
	var asked, failed atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			asked.Add(1)
			if outside.Reaches(webfrontend) != nil {
				failed.Add(1)
			}
		}
	}()
	_, err := node.Run("routed", "drain", "--for=1s")
	t.prompt(node.Place, "routed drain --for=1s")
	t.must(err)
	err = place.Eventually(5*time.Second, t.ways(3))
	t.run(t.lab.MLS.Place, "ip -4 route show "+topology.PortalNet)
	t.check("the switch sends clients to the other three", err)
	t.check("its own pods are reachable as before", outside.Reaches("10.10.10.2:8080"))
	t.run(node.Place, "routed undrain")
	t.check("undrained, it is one of four again", place.Eventually(5*time.Second, t.ways(4)))
	close(stop)
	<-done
	t.say(`A connection that is under way in the moment when the switch spreads them anew may come to a node that does not
		know it, and fails. A switch with resilient hashing moves only those of the node that goes.`)
	t.check(fmt.Sprintf("of %d requests meanwhile, %d failed: not more than were under way when the ways changed", asked.Load(), failed.Load()),
		that(failed.Load() <= rehashes, "%d failed", failed.Load()))
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// hostPorts measures the pair that attaches a pod and publishes a port of it.
func (b *cniBench) hostPorts() error {
	var errs []error
	for _, backend := range []string{"iptables", "nftables"} {
		errs = append(errs, b.duel(shape{backend: backend, proto: "tcp"}, b.o.rounds, "cni/hostport-vs-portmap-"+backend, 10, 7, 15))
	}
	return errors.Join(append(errs, b.duel(shape{backend: "nftables", proto: "udp"}, b.o.rounds, "cni/hostport-udp-vs-portmap-nftables", 10, 7, 15))...)
}

// noHostPort measures what most pods pay for a plugin that they do not need: portal and portmap alone, called with the
// result of a plugin before them. portmap has no backend named, as in most configurations.
func (b *cniBench) noHostPort() error {
	d, err := alone(b, shape{}, `{"type":"portmap","capabilities":{"portMappings":true}}`)
	if err != nil {
		return err
	}
	defer d.close() //nolint:errcheck // namespaces that end with this process
	two := 2.0
	ours, peer, dels, err := d.alternate(b)
	if err != nil {
		return err
	}
	b.r.put(Bar{Name: "cni/portal-without-hostports/ADD", Unit: Millis, Most: &two}, ours, peer)
	b.r.put(Bar{Name: "cni/portal-without-hostports/DEL", Unit: Millis, Most: &two}, dels[0], dels[1])
	return nil
}

func (d *duel) alternate(b *cniBench) (ours, peer []float64, dels [2][]float64, err error) {
	run := func(n *cniNode, del *[]float64) func() (Sample, error) {
		return func() (Sample, error) {
			p, err := newPod()
			if err != nil {
				return Sample{}, err
			}
			add, err := n.call(b.ctx, "ADD", p)
			if err != nil {
				return Sample{}, err
			}
			s, err := n.call(b.ctx, "DEL", p)
			*del = append(*del, millis(s.Wall))
			return add, errors.Join(err, p.ns.Close())
		}
	}
	o, p, err := contend(d.rounds, run(d.ours, &dels[0]), run(d.peer, &dels[1]))
	return split(o).wall, split(p).wall, dels, err
}

// alone is two nodes that run the port plugins alone.
func alone(b *cniBench, s shape, peer string) (*duel, error) {
	o, err := newNode("l3edge", b.ours, []string{portal}, s)
	if err != nil {
		return nil, err
	}
	p, err := newNode("reference", b.peer, []string{peer}, s)
	if err != nil {
		return nil, err
	}
	prev := json.RawMessage(`{"cniVersion":"1.0.0","interfaces":[{"name":"docker0"},{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.10.10.2/24","interface":1}]}`)
	o.prev, p.prev = prev, prev
	return &duel{ours: o, peer: p, rounds: b.o.rounds}, nil
}

// present measures the pair with a hostPort while thousands of others stand. These were not added by thousands of calls,
// which would take the reference plugins minutes: what a call would have left in the kernel was loaded at once, the peer's
// rules by iptables-restore and nft, our elements by nft.
func (b *cniBench) present() error {
	fmt.Fprintln(b.r.out, "    (of the ports present, all but ten were loaded by iptables-restore and nft, as the plugins would have left them)")
	rounds := max(b.o.rounds/5, 5)
	for _, backend := range []string{"iptables", "nftables"} {
		for _, n := range []int{0, 1000, 4000} {
			d, err := shape{backend: backend, proto: "tcp"}.pair(b.ours, b.peer, rounds)
			if err != nil {
				return err
			}
			err = errors.Join(d.ours.fill(b.ctx, 10), d.peer.fill(b.ctx, 10), d.ours.load("nft -f -", ourPorts(n)))
			if backend == "iptables" {
				err = errors.Join(err, d.peer.load("iptables-restore --noflush", iptablesPorts(n)))
			} else {
				err = errors.Join(err, d.peer.load("nft -f -", nftPorts(n)))
			}
			name := fmt.Sprintf("cni/%d-ports-present-vs-portmap-%s", n, backend)
			if err == nil {
				err = d.measure(b.ctx, b.r, name, 0, 7, 15)
			}
			if err := errors.Join(err, d.close()); err != nil {
				return err
			}
		}
	}
	return b.flat()
}

// flat measures ours with 4,000 ports present against ours with none, in alternation.
func (b *cniBench) flat() error {
	s := shape{backend: "nftables", proto: "tcp"}
	d, err := s.pair(b.ours, b.peer, b.o.rounds)
	if err != nil {
		return err
	}
	e, err := s.pair(b.ours, b.peer, b.o.rounds)
	if err != nil {
		return err
	}
	const flat = 0.8 // 1, but for what a median of a busy machine is not known better
	unused := d.peer
	d.peer = e.ours
	d.peer.name, d.peer.next = "l3edge-empty", 5000 // both keep their records in one place here, so that no port may be in two
	err = errors.Join(d.ours.fill(b.ctx, 1), d.peer.fill(b.ctx, 1), d.ours.load("nft -f -", ourPorts(4000)))
	if err == nil {
		err = d.measure(b.ctx, b.r, "cni/4000-ports-present-vs-ours-with-none", 0, flat, flat)
	}
	return errors.Join(err, d.close(), unused.close(), e.peer.close())
}

// load gives a program text on the node.
func (n *cniNode) load(program, text string) error {
	if text == "" {
		return nil
	}
	args := strings.Fields(program)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(text)
	return n.ns.Do(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w %s", program, err, out)
		}
		return nil
	})
}

// Ports present are of pods 10.64.x.y, from port 30000 on.
func each(n int, f func(pod string, port int)) {
	for i := range n {
		f(fmt.Sprintf("10.64.%d.%d", i/250, i%250+2), 30000+i)
	}
}

func ourPorts(n int) string {
	var b strings.Builder
	each(n, func(pod string, port int) {
		fmt.Fprintf(&b, "add element ip l3edge_hostports anyip { tcp . %d comment \"bench/%s/eth0\" : %s . 80 }\nadd element ip l3edge_hostports self { %[3]s . %[3]s }\n", port, pod, pod)
	})
	return b.String()
}

func nftPorts(n int) string {
	var b strings.Builder
	each(n, func(pod string, port int) {
		fmt.Fprintf(&b, "add rule ip cni_hostport hostports tcp dport %d dnat to %s:80 comment \"x-%[2]s\"\n", port, pod)
		for _, from := range []string{pod, "127.0.0.1"} {
			fmt.Fprintf(&b, "add rule ip cni_hostport masquerading ip saddr %s ip daddr %s masquerade comment \"x-%[2]s\"\n", from, pod)
		}
	})
	return b.String()
}

func iptablesPorts(n int) string {
	if n == 0 {
		return ""
	}
	var chains, rules strings.Builder
	each(n, func(pod string, port int) {
		chain := fmt.Sprintf("CNI-DN-%021x", port)
		fmt.Fprintf(&chains, ":%s - [0:0]\n", chain)
		for _, from := range []string{"10.64.0.0/16", "127.0.0.1/32"} {
			fmt.Fprintf(&rules, "-A %s -s %s -p tcp -m tcp --dport %d -j CNI-HOSTPORT-SETMARK\n", chain, from, port)
		}
		fmt.Fprintf(&rules, "-A %s -p tcp -m tcp --dport %d -j DNAT --to-destination %s:80\n", chain, port, pod)
		fmt.Fprintf(&rules, "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: bench id: %s\" -m multiport --dports %d -j %s\n", pod, port, chain)
	})
	return "*nat\n" + chains.String() + rules.String() + "COMMIT\n"
}

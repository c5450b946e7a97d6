// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
)

// benchCNI measures ADD and DEL of our chain against the reference plugins', one process call at a time as a runtime
// makes them, with more and more pods or ports standing, through libcni, and many at once.
func benchCNI(ctx context.Context, r *report, o options) error {
	peer, err := os.MkdirTemp("", "bench-cni-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(peer) //nolint:errcheck // a temporary folder
	for _, p := range []string{"main/bridge", "ipam/host-local", "meta/portmap"} {
		if err := goBuild(ctx, peer, "github.com/containernetworking/plugins/plugins/"+p); err != nil {
			return err
		}
	}
	b := &cniBench{ctx: ctx, r: r, o: o, ours: filepath.Join(o.root, "bin"), peer: peer}
	for _, part := range []struct {
		name string
		run  func() error
	}{{"pods", b.pods}, {"libcni", b.libcni}, {"hostport", b.hostPorts}, {"no-hostport", b.noHostPort}, {"present", b.present}, {"at-once", b.bursts}} {
		if !strings.Contains(part.name, o.only) {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// cniBench is one run of the suite.
type cniBench struct {
	ctx        context.Context //nolint:containedctx // of the run, which it is
	r          *report
	o          options
	ours, peer string // folders of binaries
}

// pods measures the pair that attaches a pod, with more and more of them standing.
func (b *cniBench) pods() error {
	for _, size := range []struct {
		pods             int
		subnet           string
		wantADD, wantDEL float64
	}{{1, "10.10.10.0/24", 3, 7}, {100, "10.10.10.0/24", 3, 7}, {240, "10.10.10.0/24", 3, 7}, {1000, "10.10.0.0/16", 4, 5}} {
		name := fmt.Sprintf("cni/%d-pods", size.pods)
		if err := b.duel(shape{subnet: size.subnet}, b.o.rounds, name, size.pods, size.wantADD, size.wantDEL); err != nil {
			return err
		}
	}
	return nil
}

// libcni measures the same as a runtime would see it: the whole list through the library that it uses.
func (b *cniBench) libcni() error {
	return errors.Join(
		b.duel(shape{lib: true}, b.o.rounds, "cni/libcni/1-pods", 1, 3, 7),
		b.duel(shape{lib: true, backend: "nftables", proto: "tcp"}, b.o.rounds, "cni/libcni/hostport-vs-portmap-nftables", 1, 7, 15),
	)
}

// duel measures two nodes of a shape.
func (b *cniBench) duel(s shape, rounds int, name string, pods int, wantADD, wantDEL float64) error {
	d, err := s.pair(b.ours, b.peer, rounds)
	if err != nil {
		return err
	}
	return errors.Join(d.measure(b.ctx, b.r, name, pods, wantADD, wantDEL), d.close())
}

// duel is our node and the peer's, alike but for the plugins.
type duel struct {
	ours, peer *cniNode
	rounds     int
}

// shape says what two nodes have in common.
type shape struct {
	subnet  string // of the pods; none: a /24
	backend string // of portmap, which portal then stands against; none: no hostPorts
	proto   string // of the hostPort that each pod asks for; none: none
	lib     bool   // called through libcni
}

func (s shape) pair(ours, peer string, rounds int) (*duel, error) {
	if s.subnet == "" {
		s.subnet = "10.10.10.0/24"
	}
	l3 := []string{fmt.Sprintf(`{"type":"bridge-l3","bridge":"docker0","subnet":%q}`, s.subnet)}
	ref := []string{fmt.Sprintf(`{"type":"bridge","bridge":"docker0","isDefaultGateway":true,"hairpinMode":true,
		"ipam":{"type":"host-local","subnet":%q}}`, s.subnet)}
	if s.backend != "" {
		l3 = append(l3, portal)
		ref = append(ref, portmap(s.backend))
	}
	a, err := newNode("l3edge", ours, l3, s)
	if err != nil {
		return nil, err
	}
	b, err := newNode("reference", peer, ref, s)
	if err != nil {
		return nil, err
	}
	return &duel{ours: a, peer: b, rounds: rounds}, nil
}

const portal = `{"type":"portal","capabilities":{"portMappings":true}}`

func portmap(backend string) string {
	return fmt.Sprintf(`{"type":"portmap","backend":%q,"capabilities":{"portMappings":true}}`, backend)
}

func (d *duel) close() error { return errors.Join(d.ours.close(), d.peer.close()) }

// measure fills both nodes to the given number of pods and then takes ADD and DEL samples in alternation.
func (d *duel) measure(ctx context.Context, r *report, name string, pods int, wantADD, wantDEL float64) error {
	for _, n := range []*cniNode{d.ours, d.peer} {
		if err := n.fill(ctx, pods); err != nil {
			return err
		}
	}
	var oDEL, pDEL []Sample
	cycle := func(n *cniNode, dels *[]Sample) func() (Sample, error) {
		return func() (Sample, error) {
			p, err := newPod()
			if err != nil {
				return Sample{}, err
			}
			time.Sleep(10 * time.Millisecond) // let what the kernel does after the last DEL be over
			add, err := n.call(ctx, "ADD", p)
			if err != nil {
				return Sample{}, err
			}
			time.Sleep(10 * time.Millisecond)
			del, err := n.call(ctx, "DEL", p)
			*dels = append(*dels, del)
			return add, errors.Join(err, p.ns.Close())
		}
	}
	oADD, pADD, err := contend(d.rounds, cycle(d.ours, &oDEL), cycle(d.peer, &pDEL))
	if err != nil {
		return err
	}
	r.add(name+"/ADD", wantADD, oADD, pADD)
	r.add(name+"/DEL", wantDEL, oDEL, pDEL)
	return nil
}

// cniNode is one node with one chain of plugins.
type cniNode struct {
	ns      *netns.Handle
	name    string
	bin     string
	plugins []string
	proto   string // of the hostPort that pods ask for; none: none
	lib     bool   // call by libcni
	prev    json.RawMessage

	mu   sync.Mutex
	next int
	pods []*pod
}

type pod struct {
	ns     *netns.Handle
	id     string
	port   int
	result json.RawMessage
}

func newNode(name, bin string, plugins []string, s shape) (*cniNode, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	return &cniNode{ns: ns, name: name, bin: bin, plugins: plugins, proto: s.proto, lib: s.lib}, nil
}

func newPod() (*pod, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	return &pod{ns: ns}, nil
}

func (n *cniNode) fill(ctx context.Context, pods int) error {
	for range pods {
		p, err := newPod()
		if err != nil {
			return err
		}
		if _, err := n.call(ctx, "ADD", p); err != nil {
			return err
		}
		n.pods = append(n.pods, p)
	}
	return nil
}

func (n *cniNode) close() error {
	var errs []error
	for _, p := range n.pods {
		_, err := n.call(context.Background(), "DEL", p)
		errs = append(errs, err, p.ns.Close())
	}
	return errors.Join(append(errs, n.ns.Close())...)
}

// call runs the chain for one pod: in order for ADD, each plugin given the result of the one before; in reverse for DEL.
func (n *cniNode) call(ctx context.Context, command string, p *pod) (Sample, error) {
	if p.id == "" {
		n.mu.Lock()
		n.next++
		p.id, p.port = fmt.Sprintf("%s-%d", n.name, n.next), 20000+n.next
		n.mu.Unlock()
	}
	if n.lib {
		return n.libcall(ctx, command, p)
	}
	var sum Sample
	for i := range n.plugins {
		k := i
		if command == "DEL" {
			k = len(n.plugins) - 1 - i
		}
		s, err := n.exec(ctx, command, n.plugins[k], p)
		if err != nil {
			return Sample{}, fmt.Errorf("%s %s %s: %w", n.name, command, p.id, err)
		}
		sum.Wall, sum.CPU = sum.Wall+s.Wall, sum.CPU+s.CPU
	}
	return sum, nil
}

func (n *cniNode) mappings(p *pod) []map[string]any {
	return []map[string]any{{"hostPort": p.port, "containerPort": 80, "protocol": n.proto}}
}

func (n *cniNode) exec(ctx context.Context, command, plugin string, p *pod) (Sample, error) {
	conf := map[string]any{}
	if err := json.Unmarshal([]byte(plugin), &conf); err != nil {
		return Sample{}, err
	}
	conf["cniVersion"], conf["name"] = "1.0.0", "bench-"+n.name
	if p.result == nil && n.prev != nil {
		p.result = n.prev
	}
	if p.result != nil {
		conf["prevResult"] = p.result
	}
	if n.proto != "" {
		conf["runtimeConfig"] = map[string]any{"portMappings": n.mappings(p)}
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return Sample{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, conf["type"].(string)))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+p.id, "CNI_IFNAME=eth0", "CNI_NETNS="+p.ns.Path(), "CNI_PATH="+n.bin)
	var s Sample
	err = n.ns.Do(func() error {
		start := time.Now()
		err := cmd.Run()
		s.Wall = time.Since(start)
		return err
	})
	if err != nil {
		return Sample{}, fmt.Errorf("%s: %w: %s %s", conf["type"], err, strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String()))
	}
	s.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if command == "ADD" {
		p.result = bytes.Clone(stdout.Bytes())
	}
	return s, nil
}

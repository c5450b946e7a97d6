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
// makes them, with more and more pods standing, then many at once.
func benchCNI(ctx context.Context, r *report, o options) error {
	peerBin, err := os.MkdirTemp("", "bench-cni-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(peerBin) //nolint:errcheck // a temporary folder
	for _, p := range []string{"main/bridge", "ipam/host-local", "meta/portmap"} {
		if err := goBuild(ctx, peerBin, "github.com/containernetworking/plugins/plugins/"+p); err != nil {
			return err
		}
	}
	ours := filepath.Join(o.root, "bin")
	for _, size := range []struct {
		pods             int
		subnet           string
		wantADD, wantDEL float64
	}{{1, "10.10.10.0/24", 3, 7}, {100, "10.10.10.0/24", 3, 7}, {240, "10.10.10.0/24", 3, 7}, {1000, "10.10.0.0/16", 4, 5}} {
		o, err := pair(o, ours, peerBin, size.subnet, "")
		if err != nil {
			return err
		}
		err = o.measure(ctx, r, fmt.Sprintf("cni/%d-pods", size.pods), size.pods, size.wantADD, size.wantDEL)
		if err := errors.Join(err, o.close()); err != nil {
			return err
		}
	}
	for _, backend := range []string{"iptables", "nftables"} {
		o, err := pair(o, ours, peerBin, "10.10.10.0/24", backend)
		if err != nil {
			return err
		}
		err = o.measure(ctx, r, "cni/hostport-vs-portmap-"+backend, 10, 7, 15)
		if err := errors.Join(err, o.close()); err != nil {
			return err
		}
	}
	return burst(ctx, r, o, ours, peerBin)
}

// burst measures 64 ADDs at once.
func burst(ctx context.Context, r *report, o options, ours, peerBin string) error {
	d, err := pair(o, ours, peerBin, "10.10.10.0/24", "")
	if err != nil {
		return err
	}
	all := func(c *cniNode) func() (Sample, error) {
		return func() (Sample, error) {
			pods := make([]*pod, 64)
			for i := range pods {
				if pods[i], err = newPod(); err != nil {
					return Sample{}, err
				}
			}
			start := time.Now()
			err := inParallel(pods, func(p *pod) error { _, err := c.call(ctx, "ADD", p); return err })
			s := Sample{Wall: time.Since(start)}
			return s, errors.Join(err, inParallel(pods, func(p *pod) error {
				_, err := c.call(ctx, "DEL", p)
				return errors.Join(err, p.ns.Close())
			}))
		}
	}
	os, ps, err := contend(max(o.rounds/10, 3), all(d.ours), all(d.peer))
	if err := errors.Join(err, d.close()); err != nil {
		return err
	}
	r.add("cni/64-at-once/ADD", 2.5, os, ps)
	return nil
}

func inParallel(pods []*pod, f func(*pod) error) error {
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// duel is our node and the peer's, alike but for the plugins.
type duel struct {
	ours, peer *cniNode
	rounds     int
}

func pair(o options, ours, peerBin, subnet, portmap string) (*duel, error) {
	l3 := []string{fmt.Sprintf(`{"type":"bridge-l3","bridge":"docker0","subnet":%q}`, subnet)}
	ref := []string{fmt.Sprintf(`{"type":"bridge","bridge":"docker0","isDefaultGateway":true,"hairpinMode":true,
		"ipam":{"type":"host-local","subnet":%q}}`, subnet)}
	if portmap != "" {
		l3 = append(l3, `{"type":"portal"}`)
		ref = append(ref, fmt.Sprintf(`{"type":"portmap","backend":%q}`, portmap))
	}
	a, err := newNode("l3edge", ours, l3, portmap != "")
	if err != nil {
		return nil, err
	}
	b, err := newNode("reference", peerBin, ref, portmap != "")
	if err != nil {
		return nil, err
	}
	return &duel{ours: a, peer: b, rounds: o.rounds}, nil
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
	ports   bool // pods ask for a hostPort

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

func newNode(name, bin string, plugins []string, ports bool) (*cniNode, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	return &cniNode{ns: ns, name: name, bin: bin, plugins: plugins, ports: ports}, nil
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

func (n *cniNode) exec(ctx context.Context, command, plugin string, p *pod) (Sample, error) {
	conf := map[string]any{}
	if err := json.Unmarshal([]byte(plugin), &conf); err != nil {
		return Sample{}, err
	}
	conf["cniVersion"], conf["name"] = "1.0.0", "bench-"+n.name
	if p.result != nil {
		conf["prevResult"] = p.result
	}
	if n.ports {
		conf["runtimeConfig"] = map[string]any{"portMappings": []map[string]any{{"hostPort": p.port, "containerPort": 80, "protocol": "tcp"}}}
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

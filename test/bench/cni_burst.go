// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// bursts measures the wall time of 1, 16 and 64 ADDs at once, and of their DELs, and counts the pods that come out of it
// without an address of their own.
func (b *cniBench) bursts() error {
	for _, t := range []struct {
		name             string
		s                shape
		wantADD, wantDEL float64 // of 64
	}{{"cni", shape{}, 2.5, 0}, {"cni/hostport", shape{backend: "nftables", proto: "tcp"}, 2.5, 0}} {
		for _, n := range []int{1, 16, 64} {
			d, err := t.s.pair(b.ours, b.peer, max(b.o.rounds/10, 3))
			if err != nil {
				return err
			}
			wantADD, wantDEL := t.wantADD, t.wantDEL
			if n < 64 {
				wantADD, wantDEL = 0, 0 // told for the curve
			}
			if err := errors.Join(d.burst(b, fmt.Sprintf("%s/%d-at-once", t.name, n), n, wantADD, wantDEL), d.close()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *duel) burst(b *cniBench, name string, n int, wantADD, wantDEL float64) error {
	var lost, peerLost []float64
	var dels [2][]Sample
	all := func(c *cniNode, lost *[]float64, dels *[]Sample) func() (Sample, error) {
		return func() (Sample, error) {
			pods := make([]*pod, n)
			for i := range pods {
				var err error
				if pods[i], err = newPod(); err != nil {
					return Sample{}, err
				}
			}
			add, errs := inParallel(pods, func(p *pod) (Sample, error) { return c.call(b.ctx, "ADD", p) })
			*lost = append(*lost, float64(n-distinct(pods, errs)))
			time.Sleep(100 * time.Millisecond) // let what is left over be over
			del, errs := inParallel(pods, func(p *pod) (Sample, error) {
				s, err := c.call(b.ctx, "DEL", p)
				return s, errors.Join(err, p.ns.Close())
			})
			*dels = append(*dels, del)
			time.Sleep(100 * time.Millisecond)
			return add, errors.Join(errs...)
		}
	}
	o, p, err := contend(d.rounds, all(d.ours, &lost, &dels[0]), all(d.peer, &peerLost, &dels[1]))
	if err != nil {
		return err
	}
	b.r.add(name+"/ADD", wantADD, o, p)
	b.r.add(name+"/DEL", wantDEL, dels[0], dels[1])
	none := 0.0
	b.r.put(Bar{Name: name + "/lost", Unit: "pods", Most: &none}, lost, peerLost)
	return nil
}

// inParallel returns how long all took together, and the CPU time of all.
func inParallel(pods []*pod, f func(*pod) (Sample, error)) (Sample, []error) {
	errs := make([]error, len(pods))
	samples := make([]Sample, len(pods))
	start := time.Now()
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { samples[i], errs[i] = f(p) })
	}
	wg.Wait()
	sum := Sample{Wall: time.Since(start)}
	for _, s := range samples {
		sum.CPU += s.CPU
	}
	return sum, errs
}

// distinct counts the pods that have an address that no other has.
func distinct(pods []*pod, errs []error) int {
	seen := map[string]bool{}
	for i, p := range pods {
		var r struct{ IPs []struct{ Address string } }
		if errs[i] == nil && json.Unmarshal(p.result, &r) == nil && len(r.IPs) > 0 {
			seen[r.IPs[0].Address] = true
		}
	}
	return len(seen)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// benchRouted measures our routed beside BIRD and FRR. What one of them cannot do is a bar that reads short, with the
// reason; it does not end the run.
func benchRouted(ctx context.Context, r *report, o options) error {
	all := []contender{
		{"routed", startOurs(filepath.Join(o.root, "bin", "routed")), syscall.SIGUSR2},
		{"bird", startBird, syscall.SIGTERM},
		{"frr", startFRR, syscall.SIGTERM},
	}
	b := &routedBench{r: r, rounds: o.rounds, all: all, root: o.root}
	for _, part := range []struct {
		name string
		run  func(context.Context)
	}{
		{"load", b.load}, {"fib", b.fib}, {"move", b.move}, {"announce", b.announce}, {"carrier", b.carrier}, {"start", b.coldStart},
		{"restart", b.restart}, {"idle", b.idle}, {"blackhole", b.blackhole}, {"scale", b.scale},
	} {
		if strings.Contains(part.name, o.only) && ctx.Err() == nil {
			part.run(ctx)
		}
	}
	return ctx.Err()
}

type routedBench struct {
	r      *report
	rounds int
	all    []contender
	root   string
}

// samples is how many samples a part takes: one for every so many rounds, but some at least.
func (b *routedBench) samples(every, least int) int { return max(b.rounds/every, least) }

func (b *routedBench) contenders(names ...string) []contender {
	return slices.DeleteFunc(slices.Clone(b.all), func(c contender) bool { return !slices.Contains(names, c.name) })
}

// measured is what one visit to a contender came to, by what was measured.
type measured map[string][]float64

// sampler visits one contender.
type sampler func(context.Context, contender) (measured, error)

// tally is what a contender's samples came to, by what was measured, or why there are none.
type tally struct {
	values measured
	err    error
}

type tallies map[string]*tally

// take collects samples of all contenders in alternation. One that fails is not asked again.
func take(ctx context.Context, rounds int, all []contender, sample sampler) tallies {
	t := tallies{}
	var runs []func() error
	for _, c := range all {
		mine := &tally{values: measured{}}
		t[c.name] = mine
		runs = append(runs, func() error {
			if mine.err != nil || ctx.Err() != nil {
				return ctx.Err()
			}
			got, err := sample(ctx, c)
			if err != nil {
				mine.err = fmt.Errorf("%s: %w", c.name, err)
				return nil
			}
			for k, v := range got {
				mine.values[k] = append(mine.values[k], v...)
			}
			return nil
		})
	}
	if err := alternate(rounds, runs...); err != nil {
		for _, mine := range t {
			mine.err = errors.Join(mine.err, err)
		}
	}
	return t
}

// put reports one measure against one peer. b carries the promise.
func (t tallies) put(r *report, b Bar, measure, peer string) {
	ours, theirs := t["routed"], t[peer]
	b.Name += "-vs-" + peer
	if err := errors.Join(ours.err, theirs.err); err != nil {
		b.Reason = strings.Join(strings.Fields(err.Error()), " ")
	}
	r.put(b, ours.values[measure], theirs.values[measure])
}

func most(v float64) *float64 { return &v }

// The addresses of the lab, the article's: a switch and nodes on one segment, each with a pod subnet.
var (
	switchAddr = netip.MustParseAddr("10.20.30.1")
	node1Addr  = netip.MustParseAddr("10.20.30.11")
	node2Addr  = netip.MustParseAddr("10.20.30.12")
	node1Pods  = netip.MustParsePrefix("10.10.10.0/24")
	node2Pods  = netip.MustParsePrefix("10.10.20.0/24")
)

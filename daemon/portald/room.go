// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// room says whether the kernel can track more connections. When it cannot, it drops new ones, to services and pods alike,
// and tells only its own log.
type room struct{ scarce bool }

// observe looks at how many connections are tracked of how many there may be, and reports whether that is news: scarce
// from 95 in a hundred on, no more below 85.
func (r *room) observe(tracked, limit int) (news bool) {
	was := r.scarce
	switch share := 100 * tracked / max(limit, 1); {
	case limit <= 0: // no limit
		r.scarce = false
	case share >= 95:
		r.scarce = true
	case share < 85:
		r.scarce = false
	}
	return r.scarce != was
}

const roomEvery = 2 * time.Second

// watchRoom tells the log when room becomes scarce and when there is plenty again, until ctx ends. Where the kernel does
// not track connections it does nothing.
func watchRoom(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(roomEvery)
	defer t.Stop()
	var r room
	for {
		tracked, limit, err := trackedConnections()
		if err == nil && r.observe(tracked, limit) {
			log := log.With("tracked", tracked, "limit", limit)
			if r.scarce {
				log.Error("connection tracking is full, new connections are dropped: raise net.netfilter.nf_conntrack_max")
			} else {
				log.Info("connection tracking has room again")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// trackedConnections is how many the namespace has, and the limit.
func trackedConnections() (tracked, limit int, err error) {
	read := func(name string) int {
		text, rerr := sysctl.Get("net/netfilter/nf_conntrack_" + name)
		n, aerr := strconv.Atoi(text)
		err = errors.Join(err, rerr, aerr)
		return n
	}
	tracked, limit = read("count"), read("max")
	return tracked, limit, err
}

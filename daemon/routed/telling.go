// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/bgp"
)

// A peer whose session comes and goes is told of so often within so long; then the log rests.
const (
	tellings    = 10
	tellingsPer = 10 * time.Second
	mostTold    = 4096 // peers to remember; whoever invents more has begun anew
)

// sessionLog tells of sessions that come and go. Its methods must not overlap.
type sessionLog struct {
	log  *slog.Logger
	told map[string]*telling
}

type telling struct {
	since time.Time
	n     int
}

func newSessionLog(log *slog.Logger) *sessionLog {
	return &sessionLog{log: log, told: map[string]*telling{}}
}

func (l *sessionLog) tell(s bgp.Session) {
	if !l.may(s.Peer) {
		return
	}
	switch s.State {
	case bgp.Established:
		l.log.Info("session established", "peer", s.Peer, "address", s.Address, "asn", s.ASN)
	case bgp.Unresolved:
		l.log.Warn("peer not found, trying again", "peer", s.Peer, "problem", s.Problem)
	default:
		l.log.Warn("no session", "peer", s.Peer, "address", s.Address, "problem", s.Problem)
	}
}

// may reports whether the peer may be told of once more, and says so when that ends.
func (l *sessionLog) may(peer string) bool {
	t := l.told[peer]
	if t == nil || time.Since(t.since) >= tellingsPer {
		if len(l.told) >= mostTold {
			clear(l.told)
		}
		t = &telling{since: time.Now()}
		l.told[peer] = t
	}
	t.n++
	if t.n == tellings+1 {
		l.log.Warn("session flaps, saying no more of it for a while", "peer", peer, "times", tellings, "rest", tellingsPer-time.Since(t.since).Truncate(time.Second))
	}
	return t.n <= tellings
}

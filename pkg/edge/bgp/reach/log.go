// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"log/slog"
	"net/netip"
)

// Log is gobgp's logger: its warnings go to log (nil: nowhere), and why a peer says that it ends the session to told.
func Log(log *slog.Logger, told func(peer netip.Addr, reason string)) *slog.Logger {
	return slog.New(overhear{atLeast{handler(log), slog.LevelWarn}, told, ""})
}

// handler is where gobgp's own log goes.
func handler(log *slog.Logger) slog.Handler {
	if log == nil {
		return slog.DiscardHandler
	}
	return log.Handler().WithAttrs([]slog.Attr{slog.String("from", "gobgp")})
}

// atLeast lets only what matters through: gobgp's information is in Sessions, better told.
type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

// overhear picks one thing out of gobgp's log that it tells nowhere else: why a peer says that it ends the session
// (RFC 9003).
type overhear struct {
	atLeast
	told func(peer netip.Addr, reason string)
	key  string // the peer that this logger is about
}

func (h overhear) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h overhear) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "received notification" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "Communicated-Reason" && a.Value.String() != "" {
				if peer, err := netip.ParseAddr(h.key); err == nil {
					h.told(peer, a.Value.String())
				}
			}
			return true
		})
	}
	if !h.atLeast.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h overhear) WithAttrs(as []slog.Attr) slog.Handler {
	for _, a := range as {
		if a.Key == "Key" {
			h.key = a.Value.String()
		}
	}
	h.Handler = h.Handler.WithAttrs(as)
	return h
}

func (h overhear) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

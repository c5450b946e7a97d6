// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/systemd"
)

// signals are those that the process is sent. They count from its very first moment: before, SIGUSR2 would be lost, and SIGHUP
// end the process.
type signals struct{ end, reload chan os.Signal }

func listenForSignals() signals {
	s := signals{end: make(chan os.Signal, 1), reload: make(chan os.Signal, 1)}
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	signal.Notify(s.reload, syscall.SIGHUP)
	return s
}

func (s signals) stop() {
	signal.Stop(s.end)
	signal.Stop(s.reload)
}

// awaitEnd waits for a signal that ends the process, and ends everything. SIGUSR2 is a hand-over to the next process: peers
// and kernel keep everything. SIGTERM is one, too, where the configuration says so; else it is a stop, as SIGINT always is.
func (d *wiring) awaitEnd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case sig := <-d.signals.end:
		d.tellManager(systemd.Stopping)
		if sig == syscall.SIGUSR2 || sig == syscall.SIGTERM && d.conf.Load().keep {
			d.log.Info("handing over: peers and kernel keep our routes")
			d.handOver()
		} else {
			d.leaving.Store(true)
			if _, stage := d.vips.now(); stage != route.Serving {
				d.because("drained, and routed has been stopped")
			}
		}
		d.stop()
		return nil
	}
}

// handOver may come before there is a speaker: then assemble sees to it.
func (d *wiring) handOver() {
	d.handedOver.Store(true)
	if sp := d.state.speaking(); sp != nil {
		sp.HandOver()
	}
}

// because gives the reason that peers hear when sessions end.
func (d *wiring) because(text string) {
	if sp := d.state.speaking(); sp != nil {
		sp.Because(d.conf.Load().node + ": " + text)
	}
}

func (d *wiring) tellManager(states ...string) {
	if err := systemd.Notify(states...); err != nil {
		d.log.Warn("cannot tell systemd", "problem", err)
	}
}

// watchdog tells systemd that the daemon lives, for as long as its state can be asked for.
func (d *wiring) watchdog(ctx context.Context) error {
	within := systemd.Watchdog()
	if within == 0 {
		return nil
	}
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		if _, err := d.state.status(ctx); err == nil {
			d.tellManager(systemd.Alive)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

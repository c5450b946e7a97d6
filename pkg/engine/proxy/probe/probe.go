// SPDX-License-Identifier: Apache-2.0

// Package probe asks an endpoint now and then whether it works.
package probe

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Settings is the part of the settings that the checks of an endpoint depend on.
func Settings(t tuning.Settings) tuning.Settings {
	return tuning.Settings{
		Check: t.Check, CheckPath: t.CheckPath, CheckEvery: t.CheckEvery, CheckTimeout: t.CheckTimeout,
		CheckFailures: t.CheckFailures, CheckPasses: t.CheckPasses,
	}
}

// Watch asks an endpoint how it is, at once and then every CheckEvery, until ctx ends. down is what it believes: an
// endpoint is taken for well until it has failed CheckFailures times in a row. tell hears of each change of mind, with
// the error that made it, or nil.
func Watch(ctx context.Context, addr netip.AddrPort, tune tuning.Settings, down *atomic.Bool, tell func(error)) {
	p := newProber(tune)
	defer p.client.CloseIdleConnections()
	inRow := 0 // results in a row that contradict what we believe
	for {
		err := p.probe(ctx, addr)
		if ctx.Err() != nil {
			return
		}
		need := tune.CheckFailures
		if down.Load() {
			need = tune.CheckPasses
		}
		if (err == nil) == down.Load() {
			inRow++
		} else {
			inRow = 0
		}
		if inRow >= need {
			inRow = 0
			down.Store(err != nil)
			tell(err)
		}
		// A little less or more each time, so that the nodes of a cluster do not ask in step.
		select {
		case <-time.After(tune.CheckEvery*9/10 + rand.N(tune.CheckEvery/5+1)):
		case <-ctx.Done():
			return
		}
	}
}

// prober asks one endpoint.
type prober struct {
	tune   tuning.Settings
	client http.Client // for gRPC: HTTP/2 without TLS
}

func newProber(tune tuning.Settings) *prober {
	tr := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return &prober{tune: tune, client: http.Client{Transport: tr}}
}

// probe returns nil if the endpoint is well.
func (p *prober) probe(ctx context.Context, addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, p.tune.CheckTimeout)
	defer cancel()
	switch p.tune.Check {
	case tuning.HTTPCheck:
		return p.get(ctx, addr)
	case tuning.GRPCCheck:
		return p.grpc(ctx, addr)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// get sends one request by hand: net/http's client would write to the process's log what odd servers say.
func (p *prober) get(ctx context.Context, addr netip.AddrPort) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close() //nolint:errcheck // nothing more is written
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: l3edge-portald\r\nConnection: close\r\n\r\n", p.tune.CheckPath, addr); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1024)).ReadString('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return err
	}
	var minor, code int
	if _, err := fmt.Sscanf(line, "HTTP/1.%d %d", &minor, &code); err != nil || code < 200 || code > 399 {
		return fmt.Errorf("answers %q", strings.TrimSpace(line))
	}
	return nil
}

// grpc calls grpc.health.v1.Health/Check for the whole server. The request is an empty message; of the answer only the
// field that matters is looked at (gRPC over HTTP/2: a byte for compression, four of length, the message).
func (p *prober) grpc(ctx context.Context, addr netip.AddrPort) error {
	url := "http://" + addr.String() + "/grpc.health.v1.Health/Check"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // everything was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return err
	}
	code := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if serving := []byte{0, 0, 0, 0, 2, 0x08, 0x01}; resp.StatusCode != http.StatusOK || code != "0" || !bytes.Equal(body, serving) {
		return fmt.Errorf("answers %s, grpc-status %q, not SERVING", resp.Status, code)
	}
	return nil
}

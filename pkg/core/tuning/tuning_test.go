// SPDX-License-Identifier: Apache-2.0

package tuning

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	with := func(change func(*Settings)) Settings { s := Default(); change(&s); return s }
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		want        Settings
		err         string
	}{
		{name: "no annotations are the defaults", want: Default()},
		{
			name:        "names of others are left alone",
			annotations: map[string]string{"example.com/balance": "x", "l3edge.dev/announce": "yes", "balance": "hash"},
			want:        Default(),
		},
		{
			name: "everything can be set",
			annotations: map[string]string{
				"l3edge.dev/mode": "userspace", "l3edge.dev/balance": "least-connections", "l3edge.dev/connect-timeouts": "100ms, 1s",
				"l3edge.dev/max-connections": "500", "l3edge.dev/proxy-protocol": "v2", "l3edge.dev/slow-start": "30s",
				"l3edge.dev/udp-idle": "1m", "l3edge.dev/eject-after": "0", "l3edge.dev/eject-for": "1s", "l3edge.dev/check": "http",
				"l3edge.dev/check-path": "/healthz?full", "l3edge.dev/check-interval": "2s", "l3edge.dev/check-timeout": "500ms",
				"l3edge.dev/check-failures": "1", "l3edge.dev/check-passes": "4", "l3edge.dev/weights": "10.10.10.0/24=3",
			},
			want: Settings{
				Mode: "userspace", Balance: LeastConnections, Dial: [4]time.Duration{100 * time.Millisecond, time.Second},
				MaxConns: 500, ProxyProtocol: 2, SlowStart: 30 * time.Second, UDPIdle: time.Minute, EjectFor: time.Second,
				Check: HTTPCheck, CheckPath: "/healthz?full", CheckEvery: 2 * time.Second, CheckTimeout: 500 * time.Millisecond,
				CheckFailures: 1, CheckPasses: 4, Weights: "10.10.10.0/24=3",
			},
		},
		{
			name: "nonsense is named and keeps the default, the rest counts",
			annotations: map[string]string{
				"l3edge.dev/mode": "ipvs", "l3edge.dev/balance": "maglev", "l3edge.dev/connect-timeouts": "1s,1s,1s,1s,1s",
				"l3edge.dev/max-connections": "-1", "l3edge.dev/proxy-protocol": "v3", "l3edge.dev/check-path": "x\r\nHost: y", "l3edge.dev/udp-idle": "10",
			},
			want: with(func(s *Settings) { s.Balance = Maglev }),
			err: `l3edge.dev/check-path: "x\r\nHost: y" is not a path
l3edge.dev/connect-timeouts: "1s,1s,1s,1s,1s" has more than 4 attempts
l3edge.dev/max-connections: "-1" is not a number from 0 to 1048576
l3edge.dev/mode: "ipvs" is none of nftables userspace
l3edge.dev/proxy-protocol: "v3" is none of v1 v2
l3edge.dev/udp-idle: "10" is not a duration from 100ms to 1h0m0s`,
		},
	} {
		got, err := Parse(tt.annotations)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if d := cmp.Diff(tt.err, msg); d != "" {
			t.Errorf("%s: error (-want +got):\n%s", tt.name, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range Keys() {
		f.Add(k, "1s")
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		s, err := Parse(map[string]string{key: value})
		if err != nil && s != Default() {
			t.Errorf("%s=%q was refused (%v) and yet changed something", key, value, err)
		}
	})
}

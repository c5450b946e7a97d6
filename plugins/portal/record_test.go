// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	for name, ms := range map[string][]nft.Mapping{
		"none": {},
		"of both families": {
			{HostIP: netip.IPv4Unspecified(), Protocol: service.TCP, HostPort: 80, To: netip.MustParseAddrPort("10.10.10.2:8080")},
			{HostIP: netip.MustParseAddr("fd00:20::62"), Protocol: service.SCTP, HostPort: 65535, To: netip.MustParseAddrPort("[fd00:10::2]:1")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseRecord(string(formatRecord(ms)))
			if err != nil || got == nil || !slices.Equal(got, ms) {
				t.Errorf("%v, %v; want %v", got, err, ms)
			}
		})
	}
}

func TestDamagedRecordsAreSaidToBe(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"half a line":    {"6 0.0.0.0:80 10.10.10.2:80\n17 0.0.0.0:53", `line "17 0.0.0.0:53": not three words`},
		"not a protocol": {"tcp 0.0.0.0:80 10.10.10.2:80\n", `parsing "tcp"`},
		"not addresses":  {"6 here:80 there\n", "here"},
	} {
		t.Run(name, func(t *testing.T) {
			if ms, err := parseRecord(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want an error with %s", ms, err, tt.want)
			}
		})
	}
}

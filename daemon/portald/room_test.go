// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestRoomForConnections(t *testing.T) {
	var r room
	for _, tt := range []struct {
		name           string
		tracked, limit int
		news, scarce   bool
	}{
		{"plenty", 10, 1000, false, false},
		{"less", 940, 1000, false, false},
		{"scarce, and that is news", 950, 1000, true, true},
		{"none at all, and that is not", 1000, 1000, false, true},
		{"a little more is not enough", 900, 1000, false, true},
		{"plenty again", 849, 1000, true, false},
		{"no limit", 1000, 0, false, false},
	} {
		if news := r.observe(tt.tracked, tt.limit); news != tt.news || r.scarce != tt.scarce {
			t.Errorf("%s: news %v, scarce %v", tt.name, news, r.scarce)
		}
	}
}

func TestTrackedConnections(t *testing.T) {
	nstest.Do(t, nstest.New(t), func() error {
		tracked, limit, err := trackedConnections()
		if tracked != 0 || limit <= 0 {
			t.Errorf("%d of %d in a new namespace", tracked, limit)
		}
		return err
	})
}

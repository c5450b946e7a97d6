// SPDX-License-Identifier: Apache-2.0

package sysctl_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestSettingsBelongToTheThreadsNamespace(t *testing.T) {
	const forward = "net/ipv4/ip_forward"
	a, b := nstest.New(t), nstest.New(t)
	for range 2 {
		nstest.Do(t, a, func() error { return sysctl.Ensure(forward, "1") })
	}
	for h, want := range map[interface{ Do(func() error) error }]string{a: "1", b: "0"} {
		err := h.Do(func() error {
			if have, err := sysctl.Get(forward); err != nil || have != want {
				t.Errorf("%s: %q, %v, want %s", forward, have, err, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	nstest.Do(t, a, func() error {
		if _, err := sysctl.Get("net/no/such"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a setting that is not there: %v", err)
		}
		if ok, err := sysctl.EnsureIfPresent("net/no/such", "1"); ok || err != nil {
			t.Errorf("an optional one: %t, %v", ok, err)
		}
		if err := sysctl.Ensure(forward, "perhaps"); err == nil {
			t.Error("nonsense was accepted")
		}
		return nil
	})
}

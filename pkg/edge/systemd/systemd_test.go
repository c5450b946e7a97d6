// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	if err := Notify(Ready); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@l3edge-test-" + strconv.Itoa(time.Now().Nanosecond())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		for _, tt := range []struct {
			states []string
			want   string
		}{
			{[]string{Ready, Status("two\nlines")}, "^READY=1\nSTATUS=two lines$"},
			{[]string{Reload}, `^RELOADING=1` + "\n" + `MONOTONIC_USEC=\d+$`},
		} {
			if err := Notify(tt.states...); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 200)
			n, err := l.Read(buf)
			if err != nil || !regexp.MustCompile(tt.want).Match(buf[:n]) {
				t.Errorf("%q %v, want %s", buf[:n], err, tt.want)
			}
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := Notify(Ready); err == nil {
		t.Error("nobody hears, and that is no error")
	}
}

func TestWatchdog(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 30 * time.Second}, {"30000000", "1", 0}, {"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := Watchdog(); got != tt.want {
			t.Errorf("%v: %v", tt, got)
		}
	}
}

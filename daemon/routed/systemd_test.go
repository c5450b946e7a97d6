// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemd plays the service manager.
func TestSystemd(t *testing.T) {
	n := newHost(t, "kubminion1")
	path := n.dir + "/notify"
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	hears := func(want string) {
		t.Helper()
		buf := make([]byte, 1000)
		_ = manager.SetReadDeadline(time.Now().Add(promised))
		for {
			k, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			if strings.HasPrefix(string(buf[:k]), want) {
				return
			}
		}
	}
	conf := n.dir + "/routed.yaml"
	write(t, conf, "peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24]\n") // there is no such peer: that is no failure to start
	n.routed(t, "--conf="+conf)
	hears("READY=1")
	hears("WATCHDOG=1")
	hears("WATCHDOG=1")
	_ = n.cmd.Process.Signal(syscall.SIGHUP)
	hears("RELOADING=1\nMONOTONIC_USEC=")
	hears("READY=1")
	n.signal(t, syscall.SIGTERM)
	hears("STOPPING=1")
}

// SPDX-License-Identifier: Apache-2.0

// Command pause holds the namespaces of a pod: it waits, reaps orphans, and leaves on SIGTERM or SIGINT.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/l3edge/l3edge/pkg/core/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		_, _ = os.Stdout.WriteString("pause " + version.Version + "\n") // not fmt: it would be half of this program
		return
	}
	if len(os.Args) > 1 {
		_, _ = os.Stderr.WriteString("pause: unknown argument " + os.Args[1] + ": it takes none but --version\n")
		os.Exit(2)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	reap() // children that died before the handler stood
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap collects every dead child: as process 1 of a pod's pid namespace, pause inherits all orphans.
func reap() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}

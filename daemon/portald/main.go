// SPDX-License-Identifier: Apache-2.0

// Command portald answers service addresses ("portals") on its node: in the kernel, or as a userspace proxy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/l3edge/l3edge/pkg/core/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "portald:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "portald:", err)
		os.Exit(1)
	}
}

// run is portald without the process around it: it returns when ctx ends or the work is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "status" {
		return status(ctx, args[1:], stdout, stderr)
	}
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	switch {
	case c.version:
		_, err := fmt.Fprintln(stdout, "portald", version.Version)
		return err
	case c.dryRun:
		return dryRun(c, stdout)
	case c.cleanup:
		return cleanup(ctx, c)
	case c.once:
		return once(ctx, c, stderr)
	}
	return serve(ctx, c, stderr)
}

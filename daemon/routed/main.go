// SPDX-License-Identifier: Apache-2.0

// Command routed is the node's BGP speaker: it announces the pod subnet to the fabric and keeps the other nodes'
// subnets in the kernel.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"github.com/l3edge/l3edge/pkg/core/version"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "routed:", err)
		os.Exit(1)
	}
}

// run is the program, but for the process around it.
func run(args []string, stdout, stderr io.Writer) error {
	ctx := context.Background()
	if len(args) > 0 {
		switch args[0] {
		case "status":
			return status(ctx, args[1:], stdout)
		case "drain", "undrain":
			return drain(ctx, args[0], args[1:], stdout)
		}
	}
	f := newFlags()
	f.set.SetOutput(stdout)
	if err := f.set.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if f.version {
		_, err := fmt.Fprintln(stdout, "routed", version.Version)
		return err
	}
	if f.set.NArg() > 0 {
		return fmt.Errorf("%q is not a command: routed [flags], or routed status, drain, undrain", f.set.Arg(0))
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	switch {
	case f.check:
		_, err := fmt.Fprintln(stdout, "ok")
		return err
	case f.dryRun:
		return dryRun(ctx, cfg, stdout)
	}
	return daemon(ctx, f, cfg, slog.New(slog.NewTextHandler(stderr, nil)))
}

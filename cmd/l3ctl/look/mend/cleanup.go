// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib"
	"github.com/l3edge/l3edge/pkg/edge/install"
	"github.com/l3edge/l3edge/pkg/edge/ipt"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

func newCleanup() *cobra.Command {
	c := cleanup{out: io.Discard}
	cmd := &cobra.Command{
		Use: "cleanup", Short: "Remove everything of l3edge's from this host", Args: cobra.NoArgs,
		Long: "Remove everything of l3edge's from this host: the plugins and their configuration, rules, routes, an empty bridge, and\n" +
			"what lies in " + mark.RunDir + ". routed and portald must be stopped; pods that are still attached stand in the way unless\n--force, and keep their links then.",
		Example: "  kubectl delete -f l3edge.yaml   # then, on each node:\n  l3ctl cleanup",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out = cmd.OutOrStdout()
			return c.run()
		},
	}
	f := cmd.Flags()
	f.BoolVar(&c.force, "force", false, "even if pods are attached")
	f.StringVar(&c.binDir, "bin-dir", mark.CNIBinDir, "`directory` in which the runtime looks for plugins")
	f.StringVar(&c.confDir, "conf-dir", mark.CNIConfDir, "`directory` in which the runtime looks for its configuration")
	return cmd
}

type cleanup struct {
	out             io.Writer
	force           bool
	binDir, confDir string
}

func (c cleanup) run() error {
	if err := c.mayBegin(); err != nil {
		return err
	}
	bridges, err := install.Bridges(c.confDir)
	errs := []error{err}
	did := func(what string, err error) {
		if errs = append(errs, err); err == nil {
			_, _ = fmt.Fprintln(c.out, "removed", what)
		}
	}
	gone, err := install.Remove(c.confDir, c.binDir) // first of all: nobody makes pods any more
	errs = append(errs, err)
	for _, path := range gone {
		did(path, nil)
	}
	did("nftables tables", nft.RemoveAll())
	did("iptables chains", removeChains())
	did("routes", errors.Join(removeLearned(), link.RemoveRoutes(mark.RoutePortald)))
	for _, name := range bridges {
		removed, err := link.RemoveBridge(name)
		if errs = append(errs, err); removed {
			did("bridge "+name, nil)
		}
	}
	did(mark.RunDir, os.RemoveAll(mark.RunDir))
	return errors.Join(errs...)
}

// mayBegin says what must end first.
func (c cleanup) mayBegin() error {
	var errs []error
	for name, socket := range map[string]string{"routed": mark.RoutedSocket, "portald": mark.PortaldSocket} {
		if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
			_ = conn.Close()
			errs = append(errs, fmt.Errorf("%s is running: stop it first", name))
		}
	}
	leases, err := filepath.Glob(mark.LeaseDir + "/*/*")
	errs = append(errs, err)
	pods := 0
	for _, path := range leases {
		if _, err := netip.ParseAddr(filepath.Base(path)); err == nil {
			pods++
		}
	}
	if pods > 0 && !c.force {
		errs = append(errs, fmt.Errorf("pods hold %d addresses: remove them first, or say --force", pods))
	}
	return errors.Join(errs...)
}

// removeChains removes what the userspace portal had in iptables, where there is such a thing.
func removeChains() error {
	var errs []error
	for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		f, err := ipt.Open(family)
		if errors.Is(err, ipt.ErrMissing) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.Cleanup()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeLearned removes routed's routes and next hops.
func removeLearned() error {
	t, err := fib.Open()
	if err != nil {
		return err
	}
	defer t.Close() //nolint:errcheck // a socket
	have, err := t.Read()
	if err != nil {
		return err
	}
	failures, err := t.Apply(route.Diff(route.FIB{}, have))
	for _, f := range failures {
		err = errors.Join(err, f)
	}
	return err
}

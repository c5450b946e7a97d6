// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// RemoveAll removes every table of ours from the calling thread's namespace, whoever made it: portald, portal or bridge-l3.
// It succeeds where there is none.
func RemoveAll() error {
	d, err := New()
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // a socket
	bridge := &family{name: "bridge", nf: unix.NFPROTO_BRIDGE}
	var errs []error
	for _, f := range []*family{ip4, ip6} {
		for _, table := range []string{mark.TableServices, mark.TableHostPorts} {
			errs = append(errs, d.c.deleteTable(f, table))
		}
	}
	return errors.Join(append(errs, d.c.deleteTable(bridge, mark.TablePods))...)
}

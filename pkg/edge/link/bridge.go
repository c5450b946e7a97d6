// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RemoveBridge removes the bridge of that name if nothing is on it, and reports whether it did. One that is not there, has
// ports or is no bridge stays, without error.
func RemoveBridge(name string) (removed bool, err error) {
	l, err := netlink.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find %s: %w", name, err)
	}
	if _, ok := l.(*netlink.Bridge); !ok {
		return false, nil
	}
	all, err := retry(netlink.LinkList)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	for _, port := range all {
		if port.Attrs().MasterIndex == l.Attrs().Index {
			return false, nil
		}
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return false, fmt.Errorf("remove %s: %w", name, err)
	}
	return true, nil
}

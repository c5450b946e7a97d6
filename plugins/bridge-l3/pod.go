// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"

	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns"
)

// openPod opens the pod's namespace and makes sure that it is not the node's.
func openPod(path string) (*netns.Handle, error) {
	if path == "" {
		return nil, cni.Errorf(cni.CodeInvalidEnvironment, "CNI_NETNS: missing")
	}
	ns, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cni.Errorf(cni.CodeUnknownContainer, "%w", err)
	}
	if err != nil {
		return nil, cni.Errorf(cni.CodeInvalidNetns, "%w", err)
	}
	home, err := netns.Current()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	same, err := ns.Same(home)
	if err == nil && same {
		err = cni.Errorf(cni.CodeInvalidNetns, "CNI_NETNS: %s is the node's own namespace", path)
	}
	if err = errors.Join(err, home.Close()); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

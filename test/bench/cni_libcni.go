// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// libcall runs the chain for one pod by the library that containerd and podman use. The CPU time is that of all children
// of this process meanwhile.
func (n *cniNode) libcall(ctx context.Context, command string, p *pod) (s Sample, err error) {
	list, err := libcni.ConfListFromBytes([]byte(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench-%s","plugins":[%s]}`, n.name, strings.Join(n.plugins, ","))))
	if err != nil {
		return s, err
	}
	rt := &libcni.RuntimeConf{ContainerID: p.id, NetNS: p.ns.Path(), IfName: "eth0"}
	if n.proto != "" {
		rt.CapabilityArgs = map[string]any{"portMappings": n.mappings(p)}
	}
	lib := libcni.NewCNIConfigWithCacheDir([]string{n.bin}, filepath.Join("/run/bench-cni", n.name), nil)
	err = n.ns.Do(func() error {
		before, start := childCPU(), time.Now()
		defer func() { s = Sample{Wall: time.Since(start), CPU: childCPU() - before} }()
		if command == "DEL" {
			return lib.DelNetworkList(ctx, list, rt)
		}
		result, err := lib.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		p.result, err = json.Marshal(result)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("%s %s %s through libcni: %w", n.name, command, p.id, err)
	}
	return s, nil
}

func childCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// SPDX-License-Identifier: Apache-2.0

// Package pod is a container runtime in miniature: it makes pods on the host it runs on, out of a network namespace,
// a pause process that holds it and the host's CNI chain, and leaves what runs inside them to others.
package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/netns"
)

// Where a runtime has things on its host.
const (
	pluginDir = "/opt/cni/bin"
	cacheDir  = "/var/lib/cni" // libcni's results, which DEL needs
	netnsDir  = "/run/netns"
	podDir    = "/run/l3lab-pods"
	ifName    = "eth0"
)

// PortMapping publishes a container's port on the node. Its JSON is that of the CNI conventions (portMappings).
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

// Pod is one running pod. Nothing of it outlives the host's /run.
type Pod struct {
	Name  string           `json:"name"`
	Netns string           `json:"netns"` // pinned there
	Pause int              `json:"pause"` // pid of the process that holds it
	Ports []PortMapping    `json:"ports,omitempty"`
	CNI   *types100.Result `json:"cni"`
}

// Add makes a pod: the namespace, its pause, and the CNI chain's ADD on it. On failure nothing of it remains.
func Add(ctx context.Context, name, pause string, ports []PortMapping) (p Pod, err error) {
	if _, err := read(name); err == nil {
		return Pod{}, fmt.Errorf("add pod: %s exists", name)
	}
	p = Pod{Name: name, Netns: filepath.Join(netnsDir, "cni-"+name), Ports: ports}
	ns, err := netns.New()
	if err != nil {
		return Pod{}, fmt.Errorf("add pod: %w", err)
	}
	defer ns.Close() //nolint:errcheck // a handle; the namespace is pinned
	if err := ns.Mount(p.Netns); err != nil {
		return Pod{}, fmt.Errorf("add pod: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("add pod: %w", err), p.remove(context.WithoutCancel(ctx)))
		}
	}()
	if err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo") // a runtime's work, not the network's
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		cmd := exec.Command(pause)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it stays when the caller goes
		if err := cmd.Start(); err != nil {
			return err
		}
		p.Pause = cmd.Process.Pid
		return nil
	}); err != nil {
		return Pod{}, err
	}
	chain, conf, rt, err := p.chain()
	if err != nil {
		return Pod{}, err
	}
	result, err := chain.AddNetworkList(ctx, conf, rt)
	if err != nil {
		return Pod{}, err
	}
	if p.CNI, err = types100.NewResultFromResult(result); err != nil {
		return Pod{}, err
	}
	return p, p.write()
}

// Del calls the chain's DEL, ends the pause and removes the namespace. A pod that is not there is no error.
func Del(ctx context.Context, name string) error {
	p, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = p.remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}

func (p Pod) remove(ctx context.Context) error {
	chain, conf, rt, err := p.chain()
	if err == nil {
		err = chain.DelNetworkList(ctx, conf, rt)
	}
	if p.Pause != 0 {
		if e := syscall.Kill(p.Pause, syscall.SIGTERM); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("end pause: %w", e))
		}
	}
	err = errors.Join(err, netns.Unmount(p.Netns))
	if e := os.Remove(stateFile(p.Name)); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// chain is the host's first CNI network and how it is called for this pod.
func (p Pod) chain() (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	files, err := libcni.ConfFiles(mark.CNIConfDir, []string{".conflist"})
	if err != nil {
		return nil, nil, nil, err
	}
	if len(files) == 0 {
		return nil, nil, nil, fmt.Errorf("no CNI network in %s", mark.CNIConfDir)
	}
	conf, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return nil, nil, nil, err
	}
	rt := &libcni.RuntimeConf{
		ContainerID: p.Name, NetNS: p.Netns, IfName: ifName,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.Name}},
	}
	if len(p.Ports) > 0 {
		rt.CapabilityArgs = map[string]any{"portMappings": p.Ports}
	}
	return libcni.NewCNIConfigWithCacheDir([]string{pluginDir}, cacheDir, nil), conf, rt, nil
}

func stateFile(name string) string { return filepath.Join(podDir, name+".json") }

func read(name string) (Pod, error) {
	var p Pod
	b, err := os.ReadFile(stateFile(name))
	if err != nil {
		return Pod{}, err
	}
	return p, json.Unmarshal(b, &p)
}

func (p Pod) write() error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(podDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(stateFile(p.Name), b, 0o600)
}

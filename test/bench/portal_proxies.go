// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// proxyHandle is a service proxy that runs on a world's node and knows a fleet.
type proxyHandle struct {
	kind string
	w    *world
	f    fleet
	// change replaces all endpoints of services by those of the version.
	change func(services []int, version int) error

	cancel  context.CancelFunc
	started time.Time // when the process was told to start
	version int
}

func (p *proxyHandle) close() {
	if p != nil {
		p.cancel()
		p.w.close()
	}
}

// proxyKind starts one kind of service proxy.
type proxyKind struct {
	name  string
	start func(ctx context.Context, p *proxyHandle) error
}

// launch makes a world, gives the proxy there all it needs to know, and starts it.
func launch(ctx context.Context, kind proxyKind, f fleet) (*proxyHandle, error) {
	ctx, cancel := context.WithCancel(ctx)
	w, err := newWorld(ctx)
	p := &proxyHandle{kind: kind.name, w: w, f: f, cancel: cancel}
	if err == nil {
		err = kind.start(ctx, p)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("%s: %w", kind.name, err)
	}
	return p, nil
}

// startPortald is portald with one YAML file for each service.
func startPortald(root string, args ...string) func(context.Context, *proxyHandle) error {
	return func(_ context.Context, p *proxyHandle) error {
		node := p.w.node
		dir := filepath.Join(node.dir, "services")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		write := func(i, version int) error {
			next, err := node.write("next.yaml", string(p.f.manifest(i, version)))
			if err != nil {
				return err
			}
			return os.Rename(next, filepath.Join(dir, name(i)+".yaml"))
		}
		for i := range p.f.n {
			if err := write(i, 0); err != nil {
				return err
			}
		}
		nodeFile, err := node.write("node.json", `{"node": "bench", "podSubnets": ["10.10.10.0/24"], "clusterPrefixes": ["10.10.0.0/16"], "addresses": ["10.20.30.2"]}`)
		if err != nil {
			return err
		}
		p.change = func(services []int, version int) error {
			for _, i := range services {
				if err := write(i, version); err != nil {
					return err
				}
			}
			return nil
		}
		p.started = time.Now()
		return node.start(filepath.Join(root, "bin", "portald"), append([]string{
			"--services=" + dir, "--node-file=" + nodeFile, "--socket=" + node.dir + "/portald.sock",
			"--ports-file=" + node.dir + "/ports.json", "--remember=" + node.dir + "/manifests",
		}, args...)...)
	}
}

// startKubeProxy is kube-proxy in nftables mode with an API server of the bench's own, see apiServer.
func startKubeProxy(bin string) func(context.Context, *proxyHandle) error {
	return func(ctx context.Context, p *proxyHandle) error {
		api := newAPIServer()
		if err := api.fill(p.f); err != nil {
			return err
		}
		url, err := api.serve(ctx, p.w.node)
		if err != nil {
			return err
		}
		kubeconfig, err := p.w.node.write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: bench, cluster: {server: %q}}]
contexts: [{name: bench, context: {cluster: bench}}]
current-context: bench
`, url))
		if err != nil {
			return err
		}
		// As it comes, but for the kernel's limits of connections, which are not its own to set here.
		config, err := p.w.node.write("kube-proxy.yaml", fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: bench
clusterCIDR: 10.10.0.0/16
detectLocalMode: ClusterCIDR
clientConnection: {kubeconfig: %s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, kubeconfig))
		if err != nil {
			return err
		}
		p.change = func(services []int, version int) error {
			for _, i := range services {
				for _, s := range p.f.slices(i, version) {
					if err := api.put("/apis/discovery.k8s.io/v1/endpointslices", s); err != nil {
						return err
					}
				}
			}
			return nil
		}
		p.started = time.Now()
		return p.w.node.start(bin, "--config="+config)
	}
}

// cpuWithChildren is the time that the proxy has run so far, and the programs that it started and waited for (nft(8),
// for kube-proxy): those in ticks of 10 ms.
func (p *proxyHandle) cpuWithChildren() (time.Duration, error) {
	own, err := p.w.node.cpu()
	if err != nil {
		return 0, err
	}
	for _, proc := range p.w.node.procs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", proc.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		var skip [13]string // state to stime, proc(5)
		var user, sys time.Duration
		args := make([]any, 0, 15)
		for i := range skip {
			args = append(args, &skip[i])
		}
		if _, err := fmt.Sscan(rest, append(args, &user, &sys)...); err != nil {
			return 0, fmt.Errorf("children of %s: %w", proc.cmd.Path, err)
		}
		own += (user + sys) * 10 * time.Millisecond
	}
	return own, nil
}

// proxyPort is the port on which a userspace portald serves a portal.
func (p *proxyHandle) proxyPort(vip netip.AddrPort) (port int, err error) {
	b, err := os.ReadFile(filepath.Join(p.w.node.dir, "ports.json"))
	if err != nil {
		return 0, err
	}
	var ports map[string]int
	if err := json.Unmarshal(b, &ports); err != nil {
		return 0, err
	}
	port, ok := ports["TCP "+vip.String()]
	if !ok {
		return 0, fmt.Errorf("no proxy port of %s in %s", vip, b)
	}
	return port, nil
}

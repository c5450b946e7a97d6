// SPDX-License-Identifier: Apache-2.0

// Package lab builds the article's lab out of network namespaces: a multilayer switch, four nodes with pods, a master
// and a client outside. It is what l3ctl lab shows, and the harness of the end-to-end tests. It runs inside a nest.
package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Host is one machine of the lab: the switch, a node, or a bystander.
type Host struct {
	*place.Place
	Spec topology.HostSpec // zero for the switch
	Pid  int               // of the pause process that holds the namespaces, inside the nest

	Routed, Portald *place.Process // nil until started

	log  string // directory of its programs' logs
	mu   sync.Mutex
	pods map[string]*Pod // guarded by mu
}

// Lab is a running lab. Its methods are for one goroutine, except that pods may be added at once.
type Lab struct {
	Topology topology.Topology
	MLS      *Switch
	Hosts    map[string]*Host // by name, without the switch
	Services map[string]topology.Service
}

// Config says how to build a lab.
type Config struct {
	Bin string // where our programs lie
	MLS Kind   // which router is the switch
	// Bare starts the switch's daemons without a word about BGP: configuring them is the caller's (FRR and BIRD).
	Bare bool
}

// programs are those that a lab needs from Config.Bin; the plugins also go into /opt/cni/bin of every node.
var (
	programs = []string{"pause", "l3ctl", "routed", "portald"}
	plugins  = []string{"bridge-l3", "portal"}
)

// Up builds the hosts, the cabling and the switch. Nothing of ours runs on the nodes yet: see StartRouted and StartPortald.
// It must run inside a nest, which holds one lab at a time; the lab ends with it, or with Down. On error the Lab, if
// there is one, holds what stands already.
func Up(cfg Config) (*Lab, error) {
	if err := cfg.MLS.check(); err != nil {
		return nil, err
	}
	l := &Lab{Topology: topology.Article(), Hosts: map[string]*Host{}, Services: map[string]topology.Service{}}
	return l, l.up(cfg)
}

func (l *Lab) up(cfg Config) error {
	for _, s := range topology.ArticleServices() {
		l.Services[s.Name] = s
	}
	if err := l.prepareFiles(cfg.Bin); err != nil {
		return fmt.Errorf("prepare files: %w", err)
	}
	mls, err := l.newHost(topology.MLSName, topology.HostSpec{})
	if err != nil {
		return err
	}
	l.MLS = &Switch{Host: mls, Kind: cfg.MLS, bare: cfg.Bare}
	hosts := make([]*Host, len(l.Topology.Hosts))
	err = inParallel(indexes(hosts), func(i int) (err error) {
		hosts[i], err = l.newHost(l.Topology.Hosts[i].Name, l.Topology.Hosts[i])
		return err
	})
	for _, h := range hosts {
		if h != nil {
			l.Hosts[h.Name] = h
		}
	}
	if err != nil {
		return err
	}
	if err := l.wire(); err != nil {
		return err
	}
	if err := l.writeState(cfg.MLS); err != nil {
		return err
	}
	return l.MLS.Start(l.Topology)
}

func indexes[T any](s []T) []int {
	out := make([]int, len(s))
	for i := range s {
		out[i] = i
	}
	return out
}

// Nodes are the hosts that run pods, in the order of the topology.
func (l *Lab) Nodes() []*Host {
	var out []*Host
	for _, spec := range l.Topology.Nodes() {
		out = append(out, l.Hosts[spec.Name])
	}
	return out
}

// prepareFiles copies the programs, keeps the machine's directories reachable below the overlays, and gives the nest
// an /etc/netns in which ip netns exec finds each host's files.
func (l *Lab) prepareFiles(bin string) error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("l3lab", Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", Dir, err)
	}
	if err := os.Mkdir(binDir, 0o755); err != nil {
		return err
	}
	for _, name := range append(append([]string{}, programs...), plugins...) {
		if err := copyFile(filepath.Join(bin, name), filepath.Join(binDir, name)); err != nil {
			return err
		}
	}
	if err := os.Setenv("PATH", Path); err != nil {
		return err
	}
	if err := keepBase(); err != nil {
		return err
	}
	own := filepath.Join(hostDir, ".nest", "etc", "netns")
	for _, name := range append([]string{topology.MLSName}, l.hostNames()...) {
		if err := writeFile(filepath.Join(own, name, "hosts"), l.Topology.HostsFile(name)); err != nil {
			return err
		}
	}
	return overlay(".nest", "etc")
}

func (l *Lab) hostNames() []string {
	var out []string
	for _, h := range l.Topology.Hosts {
		out = append(out, h.Name)
	}
	return out
}

// newHost makes the host's namespaces, with its own files in them, held by a pause process and pinned for ip netns.
func (l *Lab) newHost(name string, spec topology.HostSpec) (*Host, error) {
	if err := l.hostFiles(name, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // read to its end
	cmd := exec.Command(filepath.Join(binDir, "l3ctl"), "lab", "host", name)
	cmd.Stderr = w // closes when pause takes over: it has a log of its own from then on
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
	}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if said, _ := io.ReadAll(r); len(said) > 0 {
		_ = cmd.Wait()
		return nil, fmt.Errorf("make host %s: %s", name, said)
	}
	go cmd.Wait() //nolint:errcheck // reaps it
	h := &Host{Spec: spec, Pid: cmd.Process.Pid, log: filepath.Join(logDir, name), pods: map[string]*Pod{}}
	if h.Place, err = place.Open(name, h.Pid, h.log); err == nil {
		err = h.Net.Mount("/run/netns/" + name)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// hostFiles writes the files that the host has from the start into the upper halves of its overlays.
func (l *Lab) hostFiles(name string, spec topology.HostSpec) error {
	etc := filepath.Join(hostDir, name, "etc")
	files := map[string]string{"hosts": l.Topology.HostsFile(name), "hostname": name + "\n"}
	if spec.Pods.IsValid() {
		files["cni/net.d/10-l3edge.conflist"] = spec.Conflist()
		for _, s := range l.Services {
			files["l3edge/services/"+s.Name+".yaml"] = s.Manifest()
		}
		for _, p := range plugins {
			to := filepath.Join(hostDir, name, "opt", "cni", "bin", p)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if err := os.Link(filepath.Join(binDir, p), to); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Join(hostDir, name, "lib", "cni"), 0o755); err != nil {
			return err
		}
	}
	for file, text := range files {
		if err := writeFile(filepath.Join(etc, file), text); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(logDir, name), 0o755)
}

// State is what Dir/lab.json tells l3ctl lab exec and shell about the lab.
type State struct {
	MLS     Kind        `json:"mls"`
	Started time.Time   `json:"started"`
	Hosts   []HostState `json:"hosts"`
}

// HostState names a host and the process, inside the nest, that holds its namespaces.
type HostState struct {
	Name string `json:"name"`
	Addr string `json:"address"`
	Pods string `json:"pods,omitempty"`
	Pid  int    `json:"pid"`
}

// StateFile is where the State lies inside the nest.
const StateFile = Dir + "/lab.json"

func (l *Lab) writeState(mls Kind) error {
	s := State{MLS: mls, Started: time.Now().Round(time.Second)}
	s.Hosts = append(s.Hosts, HostState{Name: topology.MLSName, Addr: l.Topology.Segments[0].Addr.String(), Pid: l.MLS.Pid})
	for _, spec := range l.Topology.Hosts {
		h := HostState{Name: spec.Name, Addr: spec.Addr.String(), Pid: l.Hosts[spec.Name].Pid}
		if spec.Pods.IsValid() {
			h.Pods = spec.Pods.String()
		}
		s.Hosts = append(s.Hosts, h)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(StateFile, string(b)+"\n")
}

// ReadState reads the lab's state. Inside the nest and on every host root is empty; from elsewhere it is where the
// nest's root directory is seen: /proc/PID/root.
func ReadState(root string) (State, error) {
	var s State
	b, err := os.ReadFile(root + StateFile)
	if err != nil {
		return s, fmt.Errorf("read the lab's state: %w", err)
	}
	return s, json.Unmarshal(b, &s)
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("find our programs: %w (make build puts them into bin/)", err)
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// inParallel calls f for every item at once and joins the errors.
func inParallel[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

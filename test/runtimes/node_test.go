// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/lab"
	containerd "github.com/l3edge/l3edge/pkg/lab/cri"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// patience is how long a call may take: a busy machine is no reason to fail.
const patience = time.Minute

// node is a node of the lab with a containerd, asked as the kubelet asks it.
type node struct {
	*containerd.Runtime
	runtime cri.RuntimeServiceClient
}

// newNode puts a containerd on the host and gives it the images.
func newNode(t *testing.T, h *lab.Host, images []string) *node {
	t.Helper()
	r, err := containerd.Install(h, os.Getenv(groupVar))
	must(t, err)
	n := &node{Runtime: r}
	for _, plugin := range []string{"loopback", "hold"} {
		b, err := os.ReadFile(filepath.Join(os.Getenv(binVar), plugin))
		must(t, err)
		must(t, os.WriteFile(n.File("/opt/cni/bin/"+plugin), b, 0o755))
	}
	again := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond}}
	conn, err := grpc.NewClient("unix://"+n.File(containerd.Socket), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(again))
	must(t, err)
	n.runtime = cri.NewRuntimeServiceClient(conn)
	t.Cleanup(func() {
		if err := n.Kill(); err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	})
	n.start(t)
	for _, image := range images {
		must(t, n.Import(image))
	}
	return n
}

// start starts containerd and waits until it serves pods.
func (n *node) start(t *testing.T) {
	t.Helper()
	must(t, n.Runtime.Start())
	within(t, patience, "containerd on "+n.Name, func() error {
		if _, err := n.Daemon.Running(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := n.runtime.Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		for _, c := range s.Status.Conditions {
			if !c.Status {
				return fmt.Errorf("%s: %s", c.Type, c.Message)
			}
		}
		return nil
	})
}

func call(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// sandbox is a pod in containerd's words.
type sandbox struct {
	id     string
	config *cri.PodSandboxConfig
	addr   netip.Addr
	more   []netip.Addr // those of other families
	pause  int          // the process that holds its namespaces
	inside *place.Place // its network
	node   *node
}

// tcp80 publishes the pod's port 80 as hostPort.
var tcp80 = &cri.PortMapping{ContainerPort: 80, HostPort: hostPort}

// sandboxConfig asks for a pod that publishes these ports.
func (n *node) sandboxConfig(name string, ports ...*cri.PortMapping) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Hostname: name, LogDirectory: "/run/podlogs/" + name, PortMappings: ports,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: n.Group + "/" + name},
	}
}

// run starts a sandbox and finds its addresses and its network.
func (n *node) run(t *testing.T, name string, ports ...*cri.PortMapping) *sandbox {
	t.Helper()
	s := &sandbox{config: n.sandboxConfig(name, ports...), node: n}
	r, err := n.runtime.RunPodSandbox(call(t), &cri.RunPodSandboxRequest{Config: s.config})
	must(t, err)
	s.id = r.PodSandboxId
	status, err := n.runtime.PodSandboxStatus(call(t), &cri.PodSandboxStatusRequest{PodSandboxId: s.id, Verbose: true})
	must(t, err)
	s.addr, err = netip.ParseAddr(status.Status.Network.Ip)
	must(t, err)
	for _, more := range status.Status.Network.AdditionalIps {
		a, err := netip.ParseAddr(more.Ip)
		must(t, err)
		s.more = append(s.more, a)
	}
	s.pause = pid(t, status.Info)
	s.inside, err = n.Pod(n.Name+"/"+name, fmt.Sprintf("/proc/%d/ns/net", s.pause))
	must(t, err)
	t.Cleanup(func() { _ = s.inside.Net.Close() })
	return s
}

// end stops and removes the sandbox.
func (s *sandbox) end(t *testing.T) {
	t.Helper()
	s.node.stop(t, s.id)
	s.node.remove(t, s.id)
}

// pid reads the process number out of a verbose status.
func pid(t *testing.T, info map[string]string) int {
	t.Helper()
	var v struct{ Pid int }
	must(t, json.Unmarshal([]byte(info["info"]), &v))
	if v.Pid == 0 {
		t.Fatalf("no process in %v", info)
	}
	return v.Pid
}

// start starts an application container in the sandbox, which runs the command, or the image's with these arguments.
func (s *sandbox) start(t *testing.T, name string, attempt int, command, args []string) (id string) {
	t.Helper()
	r, err := s.node.runtime.CreateContainer(call(t), &cri.CreateContainerRequest{
		PodSandboxId: s.id, SandboxConfig: s.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name, Attempt: uint32(attempt)},
			Image:    &cri.ImageSpec{Image: webImage},
			Command:  command, Args: args,
			LogPath: s.log(name, attempt),
			Linux:   &cri.LinuxContainerConfig{},
		},
	})
	must(t, err)
	_, err = s.node.runtime.StartContainer(call(t), &cri.StartContainerRequest{ContainerId: r.ContainerId})
	must(t, err)
	return r.ContainerId
}

// log is the name of a container's log in the sandbox's directory of logs.
func (s *sandbox) log(name string, attempt int) string {
	return fmt.Sprintf("%s-%d.log", name, attempt)
}

// serve starts a container that serves the web on the port, and waits for it to answer.
func (s *sandbox) serve(t *testing.T, name string, port, attempt int) (id string) {
	t.Helper()
	id = s.start(t, name, attempt, nil, []string{"lab", "web", "--container=" + name, "--pod=" + s.config.Metadata.Name, fmt.Sprintf("--port=%d", port)})
	within(t, patience, name+" serves", func() error { return answers(s.inside, fmt.Sprintf("127.0.0.1:%d", port), name) })
	return id
}

// serveUDP starts a container that answers datagrams, and waits for it to answer.
func (s *sandbox) serveUDP(t *testing.T, name string, port uint16) {
	t.Helper()
	s.start(t, name, 0, []string{"/guest", "udp", fmt.Sprint(port), name}, nil)
	c := dialUDP(t, s.inside, on(netip.MustParseAddr("127.0.0.1"), port))
	within(t, patience, name+" serves", func() error { return c.answers(name) })
}

// exec runs a command in the container and returns what it says.
func (s *sandbox) exec(t *testing.T, container string, command ...string) string {
	t.Helper()
	r, err := s.node.runtime.ExecSync(call(t), &cri.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: int64(patience / time.Second)})
	must(t, err)
	if r.ExitCode != 0 {
		t.Fatalf("%v: status %d: %s", command, r.ExitCode, r.Stderr)
	}
	return string(r.Stdout)
}

// answers wants the container's answer at addr.
func answers(from *place.Place, addr, container string) error {
	a, err := from.Ask(addr)
	if err == nil && a.Container != container {
		err = fmt.Errorf("%s from %s: %s answers, want %s", addr, from.Name, a.Container, container)
	}
	return err
}

func (n *node) stop(t *testing.T, id string) {
	t.Helper()
	_, err := n.runtime.StopPodSandbox(call(t), &cri.StopPodSandboxRequest{PodSandboxId: id})
	must(t, err)
}

func (n *node) remove(t *testing.T, id string) {
	t.Helper()
	_, err := n.runtime.RemovePodSandbox(call(t), &cri.RemovePodSandboxRequest{PodSandboxId: id})
	must(t, err)
}

// removeAll stops and removes every sandbox that containerd knows, as the kubelet does with pods it has no use for.
func (n *node) removeAll(t *testing.T) (known int) {
	t.Helper()
	list, err := n.runtime.ListPodSandbox(call(t), &cri.ListPodSandboxRequest{})
	must(t, err)
	for _, s := range list.Items {
		n.stop(t, s.Id)
		n.remove(t, s.Id)
	}
	return len(list.Items)
}

// leases are the addresses that are taken on the node, and the attachments that hold them.
func (n *node) leases() ([]string, error) {
	return n.lines("find " + mark.LeaseDir + " -type f ! -name '.*' 2>/dev/null")
}

// lines are the lines that a shell command writes on the node, whatever its status.
func (n *node) lines(command string) ([]string, error) {
	out, err := n.Run("sh", "-c", command+"; true")
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(out), " ", "_")), err
}

// rests is where to look for what a pod may leave.
var rests = map[string]string{
	"leases":            "find " + mark.LeaseDir + " -type f ! -name '.*' 2>/dev/null",
	"hostPort records":  "find " + mark.RunDir + "/hostports -type f ! -name '.route_localnet@*' 2>/dev/null",
	"hostPort elements": "for f in ip ip6; do nft list table $f " + mark.TableHostPorts + " 2>/dev/null | grep -o '\"l3edge/[^\"]*\"'; done",
	"veths":             "ip -o link show type veth | grep -v " + lab.Uplink,
	"namespaces":        "ls /run/netns | grep cni-",
	"cached results":    "find /var/lib/cni/results -type f 2>/dev/null",
}

// left is what pods have left on the node, by its kind.
func (n *node) left() (map[string][]string, error) {
	out := map[string][]string{}
	var errs []error
	for what, command := range rests {
		lines, err := n.lines(command)
		if errs = append(errs, err); len(lines) > 0 {
			out[what] = lines
		}
	}
	for _, pid := range n.Processes() {
		out["processes"] = append(out["processes"], strconv.Itoa(pid))
	}
	return out, errors.Join(errs...)
}

// clean says what pods have left on the node.
func (n *node) clean() error {
	left, err := n.left()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left on %s: %v", n.Name, left)
	}
	return err
}

// mustBeClean gives the kernel a moment: what containerd and the plugins remove goes some time after they say so.
func (n *node) mustBeClean(t *testing.T) {
	t.Helper()
	within(t, 10*time.Second, "clean", n.clean)
}

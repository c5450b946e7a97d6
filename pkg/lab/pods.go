// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/pod"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Pod is a pod on one of the lab's hosts, and a place to run programs in: its network, the host's files.
type Pod struct {
	*place.Place // Name is HOST/POD
	Info         pod.Pod
	Host         *Host
	IP           netip.Addr
	Veth         string                    // the host's end of its cable
	Containers   map[string]*place.Process // by name
	lab          *Lab
}

// Container is one application container of a pod: a web server on a port.
type Container struct {
	Name     string
	Port     int
	HostPort int // 0: not published
}

// AddPod makes a pod on the host: first pause and the network, then the containers, which join it.
func (l *Lab) AddPod(h *Host, name string, containers ...Container) (*Pod, error) {
	args := []string{"lab", "pod", "add", name}
	for _, c := range containers {
		if c.HostPort != 0 {
			args = append(args, fmt.Sprintf("--publish=%d:%d", c.HostPort, c.Port))
		}
	}
	out, err := h.Run("l3ctl", args...)
	if err != nil {
		return nil, err
	}
	p := &Pod{Host: h, lab: l, Containers: map[string]*place.Process{}}
	if err := json.Unmarshal([]byte(out), &p.Info); err != nil {
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	if err := p.readResult(); err != nil {
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	// Through the host's root: the pin lies in the host's mount namespace, and it outlives the pause process.
	if p.Place, err = h.Place.Pod(h.Name+"/"+name, fmt.Sprintf("/proc/%d/root%s", h.Pid, p.Info.Netns)); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.pods[name] = p
	h.mu.Unlock()
	for _, c := range containers {
		if err := p.StartContainer(c); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *Pod) readResult() error {
	for _, ip := range p.Info.CNI.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && a.Unmap().Is4() && !p.IP.IsValid() {
			p.IP = a.Unmap()
		}
	}
	for _, i := range p.Info.CNI.Interfaces {
		if i.Sandbox == "" && strings.HasPrefix(i.Name, "veth") {
			p.Veth = i.Name
		}
	}
	if !p.IP.IsValid() || p.Veth == "" {
		return errors.New("the CNI result names no IPv4 address or no veth")
	}
	return nil
}

// StartContainer starts a container in the pod, with the variables of the services that exist now, and waits for it to answer.
func (p *Pod) StartContainer(c Container) error {
	var services []topology.Service
	for _, s := range p.lab.Services {
		services = append(services, s)
	}
	proc, err := p.StartEnv(service.Env(topology.Snapshot(services), "default"), p.Info.Name+"."+c.Name,
		"l3ctl", "lab", "web", "--container="+c.Name, "--pod="+p.Info.Name, "--port="+strconv.Itoa(c.Port))
	if err != nil {
		return err
	}
	p.Containers[c.Name] = proc
	return awaitWeb(p.Place, proc, "127.0.0.1:"+strconv.Itoa(c.Port))
}

// awaitWeb waits until the process answers at addr, seen from the place.
func awaitWeb(p *place.Place, proc *place.Process, addr string) error {
	return place.Eventually(5*time.Second, func() error {
		if _, err := proc.Running(); err != nil {
			return err
		}
		_, err := p.Get(addr, "/")
		return err
	})
}

// Delete ends the containers, and then the pod as a runtime does.
func (p *Pod) Delete() error {
	for _, c := range p.Containers {
		c.Kill()
	}
	p.Host.mu.Lock()
	delete(p.Host.pods, p.Info.Name)
	p.Host.mu.Unlock()
	_, err := p.Host.Run("l3ctl", "lab", "pod", "del", p.Info.Name)
	return errors.Join(err, p.Net.Close())
}

// PodNamed is the host's pod of that name; nil: there is none.
func (h *Host) PodNamed(name string) *Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pods[name]
}

// DeletePod deletes the host's pod of that name.
func (h *Host) DeletePod(name string) error {
	p := h.PodNamed(name)
	if p == nil {
		return fmt.Errorf("%s has no pod %s", h.Name, name)
	}
	return p.Delete()
}

// StartMaster starts the two servers on kubmasta that stand for the article's API server.
func (l *Lab) StartMaster() error {
	masta := l.Hosts["kubmasta"]
	for name, port := range map[string]int{"kubernetes": 443, "kubernetes-ro": 80} {
		proc, err := masta.Start(name, "l3ctl", "lab", "web", "--container="+name, "--pod=apiserver", "--port="+strconv.Itoa(port))
		if err != nil {
			return err
		}
		if err := awaitWeb(masta.Place, proc, "127.0.0.1:"+strconv.Itoa(port)); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile writes a file on the host, as an editor would: a whole new file, renamed into place.
func (h *Host) WriteFile(path, text string) error {
	at := fmt.Sprintf("/proc/%d/root%s", h.Pid, path)
	tmp := filepath.Join(filepath.Dir(at), ".new-"+filepath.Base(at))
	if err := writeFile(tmp, text); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if err := os.Rename(tmp, at); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// PublishService makes the service what all nodes' portald read about it.
func (l *Lab) PublishService(s topology.Service) error {
	l.Services[s.Name] = s
	for _, h := range l.Nodes() {
		if err := h.WriteFile(ServicesDir+"/"+s.Name+".yaml", s.Manifest()); err != nil {
			return fmt.Errorf("publish service %s: %w", s.Name, err)
		}
	}
	return nil
}

// ServicesDir is where portald finds its manifests on every node.
const ServicesDir = "/etc/l3edge/services"

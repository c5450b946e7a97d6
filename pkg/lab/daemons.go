// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

const routedProtocol = mark.RouteRouted

// StartRouted starts the node's routed, which is told nothing but the switch's name.
func (h *Host) StartRouted() (err error) {
	h.Routed, err = h.Start("routed", "routed", "--peer="+topology.MLSName)
	return err
}

// StartPortald starts the node's portald; more arguments, as --mode=userspace, follow the usual ones.
func (h *Host) StartPortald(args ...string) (err error) {
	h.Portald, err = h.Start("portald", "portald",
		append([]string{"--services=" + ServicesDir, "--portal-net=" + topology.PortalNet}, args...)...)
	return err
}

// KernelRoutes are the IPv4 routes of the host's main table with the protocol number, as ip route prints them without
// the protocol: "10.10.20.0/24 via 10.20.30.63 dev ens18".
func (h *Host) KernelRoutes(protocol int) ([]string, error) {
	out, err := h.Run("ip", "-4", "route", "show", "proto", fmt.Sprint(protocol))
	if err != nil {
		return nil, err
	}
	var routes []string
	for line := range strings.Lines(out) {
		routes = append(routes, strings.Join(strings.Fields(line), " "))
	}
	return routes, nil
}

// StartEverything starts the daemons on all nodes, the master's servers, and one pod web8080-N of the service
// webfrontend on every node, and waits until the switch knows every node.
func (l *Lab) StartEverything() error {
	if err := l.StartMaster(); err != nil {
		return err
	}
	if err := l.StartAllRouted(); err != nil {
		return err
	}
	for _, h := range l.Nodes() {
		if err := h.StartPortald(); err != nil {
			return err
		}
	}
	_, err := l.AddWebPods()
	return err
}

// StartAllRouted starts routed on every node and waits until the switch and all nodes know all pod subnets.
func (l *Lab) StartAllRouted() error {
	for _, h := range l.Nodes() {
		if err := h.StartRouted(); err != nil {
			return err
		}
	}
	return place.Eventually(10*time.Second, l.Converged)
}

// Converged says what is missing until the switch has a route to every node's pods, and every node to every other's.
func (l *Lab) Converged() error {
	check := func(h *Host, protocol int) error {
		routes, err := h.KernelRoutes(protocol)
		if err != nil {
			return err
		}
		for _, spec := range l.Topology.Nodes() {
			if spec.Name == h.Name {
				continue
			}
			if !slices.ContainsFunc(routes, func(r string) bool { return strings.HasPrefix(r, spec.Pods.String()+" ") }) {
				return fmt.Errorf("%s has no route to %s", h.Name, spec.Pods)
			}
		}
		return nil
	}
	if err := check(l.MLS.Host, l.MLS.RouteProtocol()); err != nil {
		return err
	}
	for _, h := range l.Nodes() {
		if _, err := h.Routed.Running(); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if err := check(h, routedProtocol); err != nil {
			return err
		}
	}
	return nil
}

// AddWebPods makes the article's four web8080 pods, one on every node, and publishes them as webfrontend's endpoints.
func (l *Lab) AddWebPods() ([]*Pod, error) {
	nodes := l.Nodes()
	pods := make([]*Pod, len(nodes))
	if err := inParallel(indexes(nodes), func(i int) (err error) {
		pods[i], err = l.AddPod(nodes[i], fmt.Sprintf("web8080-%d", i+1), Container{Name: "web8080", Port: 8080})
		return err
	}); err != nil {
		return nil, err
	}
	web := l.Services["webfrontend"]
	web.Endpoints = nil
	for _, p := range pods {
		web.Endpoints = append(web.Endpoints, topology.Endpoint{Addr: p.IP, Node: p.Host.Name})
	}
	return pods, l.PublishService(web)
}

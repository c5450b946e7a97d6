// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

const (
	// labelProxyName hands a Service to another proxy (k8s.io/kubernetes/pkg/proxy/apis/well_known_labels.go).
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	// defaultAffinity is v1.DefaultClientIPServiceAffinitySeconds, which the API server fills in.
	defaultAffinity = time.Duration(v1.DefaultClientIPServiceAffinitySeconds) * time.Second
)

// Service converts o. ok is false, without an error, for a Service that is none of ours: one of type ExternalName, or
// one that its service-proxy-name label gives to another proxy. Headless Services are converted; they have no address.
func Service(o *v1.Service) (svc service.Service, ok bool, err error) {
	if _, other := o.Labels[labelProxyName]; other || o.Spec.Type == v1.ServiceTypeExternalName {
		return service.Service{}, false, nil
	}
	var p problems
	oneOf(&p, "spec.type", o.Spec.Type, v1.ServiceTypeClusterIP, v1.ServiceTypeNodePort, v1.ServiceTypeLoadBalancer, v1.ServiceTypeExternalName)
	svc = service.Service{
		Name:           service.Name{Namespace: namespace(o.Namespace), Name: o.Name},
		ClusterIPs:     p.clusterIPs(o.Spec),
		ExternalIPs:    p.addrs("spec.externalIPs", o.Spec.ExternalIPs),
		LoadBalancers:  p.ingress(o.Status.LoadBalancer.Ingress),
		SourceRanges:   p.sourceRanges(o),
		Ports:          p.ports(o.Spec.Ports),
		InternalPolicy: p.internalPolicy(o.Spec.InternalTrafficPolicy),
		ExternalPolicy: p.externalPolicy(o.Spec.ExternalTrafficPolicy),
		Distribution:   distribution(o.Spec.TrafficDistribution),
		NotReady:       o.Spec.PublishNotReadyAddresses,
		Affinity:       p.affinity(o.Spec),
		Annotations:    ours(o.Annotations),
	}
	if o.Spec.Type == v1.ServiceTypeLoadBalancer && svc.ExternalPolicy == service.Local {
		svc.HealthPort = p.port("spec.healthCheckNodePort", o.Spec.HealthCheckNodePort, true)
	}
	if len(p.errs) == 0 { // what could not be read is reported already
		p.errs = append(p.errs, svc.Validate())
	}
	if err := errors.Join(p.errs...); err != nil {
		return service.Service{}, false, err
	}
	return svc, true, nil
}

// ours are the annotations that say how a portal is served. What others keep there may be large, and its changes are no news.
func ours(all map[string]string) map[string]string {
	var out map[string]string
	for k, v := range all {
		if strings.HasPrefix(k, tuning.Prefix) {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

func namespace(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}

func (p *problems) internalPolicy(v *v1.ServiceInternalTrafficPolicy) service.Policy {
	if v != nil {
		oneOf(p, "spec.internalTrafficPolicy", *v, v1.ServiceInternalTrafficPolicyCluster, v1.ServiceInternalTrafficPolicyLocal)
	}
	if v != nil && *v == v1.ServiceInternalTrafficPolicyLocal {
		return service.Local
	}
	return service.Cluster
}

func (p *problems) externalPolicy(v v1.ServiceExternalTrafficPolicy) service.Policy {
	oneOf(p, "spec.externalTrafficPolicy", v, v1.ServiceExternalTrafficPolicyCluster, v1.ServiceExternalTrafficPolicyLocal)
	if v == v1.ServiceExternalTrafficPolicyLocal {
		return service.Local
	}
	return service.Cluster
}

// Unheeded says what o wishes that a portal does not know, with its place: no mistake, for a later Kubernetes may know more
// wishes, but a person who misspelt one should hear of it. nil: nothing.
func Unheeded(o *v1.Service) error {
	v := o.Spec.TrafficDistribution
	if v == nil || *v == "" || distribution(v) != service.Anywhere {
		return nil
	}
	return fmt.Errorf("spec.trafficDistribution: %q is not PreferSameZone, PreferSameNode or PreferClose; traffic goes anywhere", *v)
}

func distribution(v *string) service.Distribution {
	switch {
	case v == nil:
		return service.Anywhere
	case *v == v1.ServiceTrafficDistributionPreferSameNode:
		return service.PreferSameNode
	case *v == v1.ServiceTrafficDistributionPreferSameZone, *v == v1.ServiceTrafficDistributionPreferClose:
		return service.PreferSameZone
	}
	return service.Anywhere
}

// longestAffinity is v1.MaxClientIPServiceAffinitySeconds of the API's own validation: a day.
const longestAffinity = 86400

func (p *problems) affinity(spec v1.ServiceSpec) time.Duration {
	oneOf(p, "spec.sessionAffinity", spec.SessionAffinity, v1.ServiceAffinityNone, v1.ServiceAffinityClientIP)
	if spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return 0
	}
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if n := *c.ClientIP.TimeoutSeconds; n < 1 || n > longestAffinity {
			p.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", "%d is not between 1 and %d", n, longestAffinity)
		}
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return defaultAffinity
}

// problems collects what is wrong with one object while its fields are read.
type problems struct{ errs []error }

func (p *problems) add(path, format string, a ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, a...)))
}

// oneOf reports a value that is none of those that the field may have, and is not left out. A misspelt one would mean the
// default, which is the opposite of what was wanted.
func oneOf[T ~string](p *problems, path string, v T, may ...T) {
	if v == "" || slices.Contains(may, v) {
		return
	}
	words := make([]string, len(may))
	for i, m := range may {
		words[i] = string(m)
	}
	last := len(words) - 1
	p.add(path, "%q is not %s or %s", string(v), strings.Join(words[:last], ", "), words[last])
}

func (p *problems) addr(path, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.add(path, "%q is not an address", s)
	}
	return a.Unmap()
}

func (p *problems) addrs(path string, ss []string) []netip.Addr {
	var out []netip.Addr
	for i, s := range ss {
		out = append(out, p.addr(fmt.Sprintf("%s[%d]", path, i), s))
	}
	return out
}

func (p *problems) clusterIPs(spec v1.ServiceSpec) []netip.Addr {
	if spec.ClusterIP == v1.ClusterIPNone || len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] == v1.ClusterIPNone {
		return nil
	}
	if len(spec.ClusterIPs) > 0 {
		return p.addrs("spec.clusterIPs", spec.ClusterIPs)
	}
	if spec.ClusterIP == "" {
		return nil
	}
	return []netip.Addr{p.addr("spec.clusterIP", spec.ClusterIP)}
}

// ingress takes the load balancer's addresses that are delivered to nodes unchanged (KEP-1860): with ipMode Proxy the
// balancer rewrites the destination itself, and traffic must go through it.
func (p *problems) ingress(in []v1.LoadBalancerIngress) []netip.Addr {
	var out []netip.Addr
	for i, ing := range in {
		if ing.IPMode != nil {
			oneOf(p, fmt.Sprintf("status.loadBalancer.ingress[%d].ipMode", i), *ing.IPMode, v1.LoadBalancerIPModeVIP, v1.LoadBalancerIPModeProxy)
		}
		if ing.IP == "" || ing.IPMode != nil && *ing.IPMode != v1.LoadBalancerIPModeVIP {
			continue
		}
		out = append(out, p.addr(fmt.Sprintf("status.loadBalancer.ingress[%d].ip", i), ing.IP))
	}
	return out
}

func (p *problems) sourceRanges(o *v1.Service) []netip.Prefix {
	path, ranges := "spec.loadBalancerSourceRanges", o.Spec.LoadBalancerSourceRanges
	if a := o.Annotations[v1.AnnotationLoadBalancerSourceRangesKey]; len(ranges) == 0 && strings.TrimSpace(a) != "" {
		path, ranges = "metadata.annotations", strings.Split(a, ",")
	}
	var out []netip.Prefix
	for i, s := range ranges {
		r, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			p.add(fmt.Sprintf("%s[%d]", path, i), "%q is not a prefix", s)
			continue
		}
		out = append(out, r.Masked())
	}
	return out
}

func (p *problems) ports(in []v1.ServicePort) []service.Port {
	var out []service.Port
	for i, sp := range in {
		at := fmt.Sprintf("spec.ports[%d]", i)
		out = append(out, service.Port{
			Name: sp.Name, Protocol: p.protocol(at+".protocol", sp.Protocol),
			Port: p.port(at+".port", sp.Port, false), NodePort: p.port(at+".nodePort", sp.NodePort, true),
		})
	}
	return out
}

func (p *problems) port(path string, n int32, zero bool) uint16 {
	if n < 0 || n > 65535 || n == 0 && !zero {
		p.add(path, "%d is not a port", n)
		return 0
	}
	return uint16(n)
}

func (p *problems) protocol(path string, v v1.Protocol) service.Protocol {
	switch v {
	case "", v1.ProtocolTCP:
		return service.TCP
	case v1.ProtocolUDP:
		return service.UDP
	case v1.ProtocolSCTP:
		return service.SCTP
	}
	p.add(path, "%q is not TCP, UDP or SCTP", v)
	return 0
}

// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Env returns the environment variables that tell a container about the services of its namespace that exist when it
// starts, and about the API server's in namespace default: NAME=value, in a stable order. They are those of the kubelet
// (WEBFRONTEND_SERVICE_HOST, WEBFRONTEND_SERVICE_PORT, one _SERVICE_PORT_name for each named port) together with the
// older Docker links (WEBFRONTEND_PORT_80_TCP_ADDR and so on). Headless services have none.
func Env(s Snapshot, namespace string) []string {
	var seen []Service
	for _, svc := range s.Services {
		_, own := s.Services[Name{Namespace: namespace, Name: svc.Name.Name}]
		if svc.Name.Namespace == namespace || svc.Name.Namespace == "default" && master(svc.Name.Name) && !own {
			seen = append(seen, svc)
		}
	}
	slices.SortFunc(seen, func(a, b Service) int { return cmp.Compare(a.Name.Name, b.Name.Name) })
	var env []string
	for _, svc := range seen {
		if len(svc.ClusterIPs) > 0 && len(svc.Ports) > 0 {
			env = append(env, serviceEnv(svc)...)
		}
	}
	return env
}

// master reports the names under which an API server offers itself; the second is of 2015.
func master(name string) bool { return name == "kubernetes" || name == "kubernetes-ro" }

func serviceEnv(svc Service) []string {
	name := envName(svc.Name.Name)
	host := svc.ClusterIPs[0].String()
	env := []string{
		name + "_SERVICE_HOST=" + host,
		name + "_SERVICE_PORT=" + strconv.Itoa(int(svc.Ports[0].Port)),
	}
	for _, p := range svc.Ports {
		if p.Name != "" {
			env = append(env, name+"_SERVICE_PORT_"+envName(p.Name)+"="+strconv.Itoa(int(p.Port)))
		}
	}
	for i, p := range svc.Ports {
		port, proto := strconv.Itoa(int(p.Port)), p.Protocol.String()
		url := strings.ToLower(proto) + "://" + netip.AddrPortFrom(svc.ClusterIPs[0], p.Port).String()
		if i == 0 {
			env = append(env, name+"_PORT="+url)
		}
		link := name + "_PORT_" + port + "_" + proto
		env = append(env,
			link+"="+url,
			link+"_PROTO="+strings.ToLower(proto),
			link+"_PORT="+port,
			link+"_ADDR="+host)
	}
	return env
}

// envName spells a DNS label so that a shell can read it.
func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

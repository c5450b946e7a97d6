// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"fmt"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// Result is what ADD tells the runtime, in the shape of version 1.1.0. Older versions are read and written by conversion.
type Result struct {
	Interfaces []Interface
	IPs        []IP
	Routes     []Route
	DNS        DNS

	// Raw is the text that ParseResult read. A Result that has it is printed verbatim when the version is the same,
	// so that a chained plugin loses nothing that it does not know; whoever changes a parsed Result sets Raw to nil.
	Raw []byte
	// version is the one that Raw is in.
	version string
}

// Interface is one link that ADD made. Sandbox is the path of its namespace, empty for the node's own.
type Interface struct {
	Name       string
	MAC        string
	MTU        int // from 1.1.0
	Sandbox    string
	SocketPath string // from 1.1.0
	PciID      string // from 1.1.0
}

// IP is one address of the pod. Interface is an index into Result.Interfaces, nil when unknown.
type IP struct {
	Address   netip.Prefix // the address with its on-link length, not masked
	Gateway   netip.Addr   // zero: none
	Interface *int
}

// Route is one route of the pod. A nil Table or Scope is the kernel's default.
type Route struct {
	Dst      netip.Prefix
	GW       netip.Addr
	MTU      int  // bytes, from 1.1.0
	AdvMSS   int  // bytes, from 1.1.0
	Priority int  // from 1.1.0
	Table    *int // from 1.1.0
	Scope    *int // from 1.1.0
}

// DNS is passed from configuration to result untouched.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// IsZero reports that there is nothing to say about DNS.
func (d DNS) IsZero() bool {
	return len(d.Nameservers)+len(d.Search)+len(d.Options) == 0 && d.Domain == ""
}

// ParseResult reads a result of any version this package knows.
func ParseResult(data []byte) (*Result, error) {
	o, err := rawjson.ParseObject(data)
	if err != nil {
		return nil, fmt.Errorf("parse result: %w", err)
	}
	r := &Result{Raw: data}
	if err := o.Get("cniVersion").Decode(&r.version); err != nil {
		return nil, fmt.Errorf("parse result: cniVersion: %w", err)
	}
	if _, ok := rank(r.version); !ok {
		return nil, fmt.Errorf("parse result: version %q is not known", r.version)
	}
	for _, part := range []struct {
		name string
		one  func(rawjson.Object) error
	}{{"interfaces", r.readInterface}, {"ips", r.readIP}, {"routes", r.readRoute}} {
		list, err := o.Get(part.name).Array()
		if err != nil {
			return nil, fmt.Errorf("parse result: %s: %w", part.name, err)
		}
		for i, v := range list {
			fields, err := v.Object()
			if err == nil {
				err = part.one(fields)
			}
			if err != nil {
				return nil, fmt.Errorf("parse result: %s[%d]: %w", part.name, i, err)
			}
		}
	}
	if err := o.Get("dns").Decode(&r.DNS); err != nil {
		return nil, fmt.Errorf("parse result: dns: %w", err)
	}
	return r, nil
}

// fields decodes the named values of an object.
func fields(o rawjson.Object, into map[string]any) error {
	for name, v := range into {
		if err := o.Get(name).Decode(v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (r *Result) readInterface(o rawjson.Object) error {
	var i Interface
	err := fields(o, map[string]any{"name": &i.Name, "mac": &i.MAC, "mtu": &i.MTU, "sandbox": &i.Sandbox, "socketPath": &i.SocketPath, "pciID": &i.PciID})
	r.Interfaces = append(r.Interfaces, i)
	return err
}

func (r *Result) readIP(o rawjson.Object) (err error) {
	var address, gateway string
	index := -1
	if err := fields(o, map[string]any{"address": &address, "gateway": &gateway, "interface": &index}); err != nil {
		return err
	}
	var ip IP
	if ip.Address, err = netip.ParsePrefix(address); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if gateway != "" {
		if ip.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
	}
	if !o.Get("interface").IsNull() {
		if index < 0 || index >= len(r.Interfaces) {
			return fmt.Errorf("interface: there is no interfaces[%d]", index)
		}
		ip.Interface = &index
	}
	r.IPs = append(r.IPs, ip)
	return nil
}

func (r *Result) readRoute(o rawjson.Object) error {
	route, err := ParseRoute(o)
	r.Routes = append(r.Routes, route)
	return err
}

// ParseRoute reads a route as results and host-local's configuration write it.
func ParseRoute(o rawjson.Object) (r Route, err error) {
	var dst, gw string
	if err := fields(o, map[string]any{"dst": &dst, "gw": &gw, "mtu": &r.MTU, "advmss": &r.AdvMSS, "priority": &r.Priority,
		"table": &r.Table, "scope": &r.Scope}); err != nil {
		return r, err
	}
	if r.Dst, err = netip.ParsePrefix(dst); err != nil {
		return r, fmt.Errorf("dst: %w", err)
	}
	if gw != "" {
		if r.GW, err = netip.ParseAddr(gw); err != nil {
			return r, fmt.Errorf("gw: %w", err)
		}
	}
	return r, nil
}

// Pod finds the interface named ifName inside a sandbox and the addresses on it; ok is false when the result has none.
// With several addresses, IPv4 and IPv6 keep the result's order.
func (r *Result) Pod(ifName string) (i Interface, ips []IP, ok bool) {
	for index, candidate := range r.Interfaces {
		if candidate.Name != ifName || candidate.Sandbox == "" {
			continue
		}
		for _, ip := range r.IPs {
			if ip.Interface == nil || *ip.Interface == index {
				ips = append(ips, ip)
			}
		}
		return candidate, ips, true
	}
	return Interface{}, nil, false
}

// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Result is what ADD tells the runtime, in the shape of version 1.1.0. Older versions are read and written by conversion.
type Result struct {
	Interfaces []Interface
	IPs        []IP
	Routes     []Route
	DNS        DNS

	// Raw is the text that ParseResult read. A Result that has it is printed verbatim when the version is the same,
	// so that a chained plugin loses nothing that it does not know; whoever changes a parsed Result sets Raw to nil.
	Raw json.RawMessage
	// version is the one that Raw is in.
	version string
}

// Interface is one link that ADD made. Sandbox is the path of its namespace, empty for the node's own.
type Interface struct {
	Name       string `json:"name"`
	MAC        string `json:"mac,omitempty"`
	MTU        int    `json:"mtu,omitempty"` // from 1.1.0
	Sandbox    string `json:"sandbox,omitempty"`
	SocketPath string `json:"socketPath,omitempty"` // from 1.1.0
	PciID      string `json:"pciID,omitempty"`      // from 1.1.0
}

// IP is one address of the pod. Interface is an index into Result.Interfaces, nil when unknown.
type IP struct {
	Address   netip.Prefix // the address with its on-link length, not masked
	Gateway   netip.Addr   // zero: none
	Interface *int
}

// Route is one route of the pod. A nil Table or Scope is the kernel's default.
type Route struct {
	Dst      netip.Prefix `json:"dst"`
	GW       netip.Addr   `json:"gw,omitzero"`
	MTU      int          `json:"mtu,omitempty"`      // bytes, from 1.1.0
	AdvMSS   int          `json:"advmss,omitempty"`   // bytes, from 1.1.0
	Priority int          `json:"priority,omitempty"` // from 1.1.0
	Table    *int         `json:"table,omitempty"`    // from 1.1.0
	Scope    *int         `json:"scope,omitempty"`    // from 1.1.0
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

// rawIP is IP on the wire; Version ("4" or "6") exists before 1.0.0 only.
type rawIP struct {
	Version   string       `json:"version,omitempty"`
	Interface *int         `json:"interface,omitempty"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
}

type rawResult struct {
	CNIVersion string      `json:"cniVersion"`
	Interfaces []Interface `json:"interfaces,omitempty"`
	IPs        []rawIP     `json:"ips,omitempty"`
	Routes     []Route     `json:"routes,omitempty"`
	DNS        DNS         `json:"dns,omitzero"`
}

// ParseResult reads a result of any version this package knows.
func ParseResult(data []byte) (*Result, error) {
	var raw rawResult
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("parse result: %w", err)
	}
	if _, ok := rank(raw.CNIVersion); !ok {
		return nil, fmt.Errorf("parse result: version %q is not known", raw.CNIVersion)
	}
	r := &Result{Interfaces: raw.Interfaces, Routes: raw.Routes, DNS: raw.DNS, Raw: data, version: raw.CNIVersion}
	for i, ip := range raw.IPs {
		if ip.Interface != nil && (*ip.Interface < 0 || *ip.Interface >= len(raw.Interfaces)) {
			return nil, fmt.Errorf("parse result: ips[%d].interface: there is no interfaces[%d]", i, *ip.Interface)
		}
		r.IPs = append(r.IPs, IP{Address: ip.Address, Gateway: ip.Gateway, Interface: ip.Interface})
	}
	return r, nil
}

// Encode writes the result in the asked version, leaving out what that version has no field for.
func (r *Result) Encode(version string) []byte {
	if r.Raw != nil && r.version == version {
		return append(append([]byte{}, r.Raw...), '\n')
	}
	raw := rawResult{CNIVersion: version, DNS: r.DNS}
	n, _ := rank(version)
	for _, i := range r.Interfaces {
		if n < rank110 {
			i.MTU, i.SocketPath, i.PciID = 0, "", ""
		}
		raw.Interfaces = append(raw.Interfaces, i)
	}
	for _, ip := range r.IPs {
		out := rawIP{Interface: ip.Interface, Address: ip.Address, Gateway: ip.Gateway}
		if n < rank100 {
			out.Version = "6"
			if ip.Address.Addr().Is4() {
				out.Version = "4"
			}
		}
		raw.IPs = append(raw.IPs, out)
	}
	for _, route := range r.Routes {
		if n < rank110 {
			route = Route{Dst: route.Dst, GW: route.GW}
		}
		raw.Routes = append(raw.Routes, route)
	}
	b, err := json.Marshal(raw)
	if err != nil {
		panic("cni: encoding plain values: " + err.Error())
	}
	return append(b, '\n')
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

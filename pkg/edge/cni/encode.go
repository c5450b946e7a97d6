// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"net/netip"
	"strconv"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// Encode writes the result in the asked version, leaving out what that version has no field for.
func (r *Result) Encode(version string) []byte {
	if r.Raw != nil && r.version == version {
		return append(append([]byte{}, r.Raw...), '\n')
	}
	n, _ := rank(version)
	w := &writer{b: make([]byte, 0, 1024)}
	w.open('{')
	w.str("cniVersion", version)
	w.list("interfaces", len(r.Interfaces), func(i int) { w.iface(r.Interfaces[i], n) })
	w.list("ips", len(r.IPs), func(i int) { w.ip(r.IPs[i], n) })
	w.list("routes", len(r.Routes), func(i int) { w.route(r.Routes[i], n) })
	if !r.DNS.IsZero() {
		text, err := json.Marshal(r.DNS)
		if err != nil {
			panic("cni: encoding plain values: " + err.Error())
		}
		w.name("dns")
		w.b = append(w.b, text...)
	}
	w.close('}')
	return append(w.b, '\n')
}

// writer appends JSON; each name or element after the first gets its comma.
type writer struct {
	b     []byte
	comma bool
}

func (w *writer) open(c byte)  { w.b, w.comma = append(w.b, c), false }
func (w *writer) close(c byte) { w.b, w.comma = append(w.b, c), true }

func (w *writer) next() {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
}

func (w *writer) name(name string) {
	w.next()
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

// str, num, addr and ptr leave out what is zero.
func (w *writer) str(name, v string) {
	if v != "" {
		w.name(name)
		w.b = rawjson.AppendString(w.b, v)
	}
}

func (w *writer) num(name string, v int) {
	if v != 0 {
		w.ptr(name, &v)
	}
}

func (w *writer) ptr(name string, v *int) {
	if v != nil {
		w.name(name)
		w.b = strconv.AppendInt(w.b, int64(*v), 10)
	}
}

func (w *writer) addr(name string, v netip.Addr) {
	if v.IsValid() {
		w.str(name, v.String())
	}
}

func (w *writer) list(name string, n int, one func(i int)) {
	if n == 0 {
		return
	}
	w.name(name)
	w.open('[')
	for i := range n {
		w.next()
		w.open('{')
		one(i)
		w.close('}')
	}
	w.close(']')
}

func (w *writer) iface(i Interface, n int) {
	w.name("name")
	w.b = rawjson.AppendString(w.b, i.Name)
	w.str("mac", i.MAC)
	if n >= rank110 {
		w.num("mtu", i.MTU)
	}
	w.str("sandbox", i.Sandbox)
	if n >= rank110 {
		w.str("socketPath", i.SocketPath)
		w.str("pciID", i.PciID)
	}
}

func (w *writer) ip(ip IP, n int) {
	if n < rank100 {
		family := "6"
		if ip.Address.Addr().Is4() {
			family = "4"
		}
		w.str("version", family)
	}
	w.ptr("interface", ip.Interface)
	w.str("address", ip.Address.String())
	w.addr("gateway", ip.Gateway)
}

func (w *writer) route(r Route, n int) {
	w.str("dst", r.Dst.String())
	w.addr("gw", r.GW)
	if n < rank110 {
		return
	}
	w.num("mtu", r.MTU)
	w.num("advmss", r.AdvMSS)
	w.num("priority", r.Priority)
	w.ptr("table", r.Table)
	w.ptr("scope", r.Scope)
}

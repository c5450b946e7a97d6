// SPDX-License-Identifier: Apache-2.0

package attach

import "fmt"

// Equal compares what the routes mean: the main table and the scope that a route has by itself need not be said.
func (r Route) Equal(o Route) bool { return r.plain().String() == o.plain().String() }

// plain leaves unsaid what goes without saying (RT_TABLE_MAIN, RT_SCOPE_UNIVERSE and RT_SCOPE_LINK of linux/rtnetlink.h).
func (r Route) plain() Route {
	natural := 0
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		natural = 253
	}
	if r.Scope != nil && *r.Scope == natural {
		r.Scope = nil
	}
	if r.Table != nil && *r.Table == 254 {
		r.Table = nil
	}
	return r
}

// String is the route in the words of ip route.
func (r Route) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.OnLink {
		s += " onlink"
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"mtu", r.MTU}, {"advmss", r.AdvMSS}, {"metric", r.Priority}} {
		if f.value != 0 {
			s += fmt.Sprintf(" %s %d", f.name, f.value)
		}
	}
	if r.Table != nil {
		s += fmt.Sprintf(" table %d", *r.Table)
	}
	if r.Scope != nil {
		s += fmt.Sprintf(" scope %d", *r.Scope)
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package attach

import "fmt"

// Equal compares routes by value.
func (r Route) Equal(o Route) bool { return r.String() == o.String() }

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

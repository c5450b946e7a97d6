// SPDX-License-Identifier: Apache-2.0

package podnet

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// addresses collects the range sets from wherever they are written: subnet, ipam, runtimeConfig.ipRanges, ranges.
func (c *Config) addresses(raw rawConfig, ipam rawIPAM, asked rawjson.Value) (errs []error) {
	one := func(place string, r rawRange) {
		if r == (rawRange{}) {
			return
		}
		s, err := r.parse(place)
		errs = append(errs, err)
		if err == nil {
			c.Sets = append(c.Sets, pool.Set{s})
		}
	}
	one("", rawRange{Subnet: raw.Subnet})
	one("ipam.", ipam.rawRange)
	for _, group := range []struct {
		place string
		sets  rawjson.Value
	}{{"runtimeConfig.ipRanges", asked}, {"ranges", raw.Ranges}, {"ipam.ranges", ipam.Ranges}} {
		sets, err := group.sets.Array()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", group.place, err))
		}
		for i, v := range sets {
			set, more := parseSet(fmt.Sprintf("%s[%d]", group.place, i), v)
			if errs = append(errs, more...); len(set) > 0 {
				c.Sets = append(c.Sets, set)
			}
		}
	}
	return append(errs, overlaps(c.Sets)...)
}

// overlaps names every range that may give what another one may, in the same set or in another.
func overlaps(sets []pool.Set) (errs []error) {
	var before []pool.Range
	for _, set := range sets {
		for _, r := range set {
			for _, b := range before {
				if r.Overlaps(b) {
					errs = append(errs, fmt.Errorf("subnet: %s to %s of %s overlaps %s to %s of %s, so that an address could be given twice", r.First, r.Last, r.Subnet, b.First, b.Last, b.Subnet))
				}
			}
			before = append(before, r)
		}
	}
	return errs
}

// parseSet reads one set of ranges.
func parseSet(place string, v rawjson.Value) (set pool.Set, errs []error) {
	errs = each(place, v, func(at string, o rawjson.Object) error {
		var raw rawRange
		if err := errors.Join(read(at+".", o, raw.fields(), isOthersInside)...); err != nil {
			return err
		}
		r, err := raw.parse(at + ".")
		if err != nil {
			return err
		}
		if len(set) > 0 && set[0].Subnet.Addr().Is4() != r.Subnet.Addr().Is4() {
			return fmt.Errorf("%s.subnet: %s is of another family than %s in the same set", at, r.Subnet, set[0].Subnet)
		}
		set = append(set, r)
		return nil
	})
	return set, errs
}

// parse reads a range; place is what stands before its keys.
func (r rawRange) parse(place string) (pool.Range, error) {
	var errs []error
	subnet, err := netip.ParsePrefix(r.Subnet)
	if err == nil && subnet.Addr().Is4In6() {
		err = errors.New("IPv4 in the clothes of IPv6")
	}
	if err != nil && r.Subnet == "" {
		errs = append(errs, fmt.Errorf("%ssubnet: missing", place))
	} else if err != nil {
		errs = append(errs, fmt.Errorf("%ssubnet: %s is not a prefix", place, r.Subnet))
	}
	var addrs [3]netip.Addr
	for i, f := range []struct{ key, text string }{{"rangeStart", r.RangeStart}, {"rangeEnd", r.RangeEnd}, {"gateway", r.Gateway}} {
		if f.text == "" {
			continue
		}
		if addrs[i], err = netip.ParseAddr(f.text); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %q is not an address", place, f.key, f.text))
		}
	}
	if len(errs) > 0 {
		return pool.Range{}, errors.Join(errs...)
	}
	out, err := pool.NewRange(subnet, addrs[0], addrs[1], addrs[2])
	return out, prefixed(place, err)
}

// prefixed puts a place before every one of joined errors.
func prefixed(place string, err error) error {
	list, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the joined list itself
	if !ok {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s%w", place, err)
	}
	var errs []error
	for _, e := range list.Unwrap() {
		errs = append(errs, fmt.Errorf("%s%w", place, e))
	}
	return errors.Join(errs...)
}

// routes reads the pod's routes, as host-local and the results of CNI write them.
func routes(list rawjson.Value) (out []attach.Route, errs []error) {
	errs = each("ipam.routes", list, func(at string, o rawjson.Object) error {
		var r attach.Route
		var dst, gw string
		fields := []rawjson.Field{{Key: "dst", Into: &dst}, {Key: "gw", Into: &gw}, {Key: "mtu", Into: &r.MTU}, {Key: "advmss", Into: &r.AdvMSS},
			{Key: "priority", Into: &r.Priority}, {Key: "table", Into: &r.Table}, {Key: "scope", Into: &r.Scope}}
		errs := read(at+".", o, fields, isOthersInside)
		p, err := netip.ParsePrefix(dst)
		if v := o.Get("dst"); v.IsNull() {
			errs = append(errs, fmt.Errorf("%s.dst: missing", at))
		} else if err != nil && v[0] == '"' {
			errs = append(errs, fmt.Errorf("%s.dst: %q is not a prefix", at, dst))
		}
		if gw != "" {
			if r.Via, err = netip.ParseAddr(gw); err != nil {
				errs = append(errs, fmt.Errorf("%s.gw: %q is not an address", at, gw))
			} else if p.IsValid() && r.Via.Is4() != p.Addr().Is4() {
				errs = append(errs, fmt.Errorf("%s.gw: %s is of another family than dst %s", at, gw, dst))
			}
		}
		errs = append(errs, numbers(at, r)...)
		r.Dst = p.Masked()
		out = append(out, r)
		return errors.Join(errs...)
	})
	return out, errs
}

// numbers refuses those of a route that the kernel has no room for (linux/rtnetlink.h).
func numbers(place string, r attach.Route) (errs []error) {
	value := func(p *int) int {
		if p == nil {
			return 0
		}
		return *p
	}
	for _, f := range []struct {
		key         string
		value, most int
	}{
		{"mtu", r.MTU, math.MaxUint16}, {"advmss", r.AdvMSS, math.MaxUint16}, {"priority", r.Priority, math.MaxUint32},
		{"table", value(r.Table), math.MaxUint32}, {"scope", value(r.Scope), math.MaxUint8},
	} {
		if f.value < 0 || f.value > f.most {
			errs = append(errs, fmt.Errorf("%s.%s: %d is not between 0 and %d", place, f.key, f.value, f.most))
		}
	}
	return errs
}

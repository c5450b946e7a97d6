// SPDX-License-Identifier: Apache-2.0

// Package podnet reads what a network of pods is to be like, in bridge-l3's keys and those of the reference bridge and host-local, without knowing the kernel.
package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// Config is one network of pods. Parse makes it, so it is valid.
type Config struct {
	Bridge                                                   string
	MTU                                                      int // 0: the bridge's, or the uplink's
	Gateway, DefaultRoute, Force, Hairpin, Promisc, Isolated bool
	DefaultAsked                                             bool // DefaultRoute is not only the default
	Routed, DAD, Down                                        bool
	VLAN                                                     attach.VLANSpec
	Sets                                                     []pool.Set // empty: the node's pod subnets, unless NoAddress or Delegate
	CheckMAC, CheckSource                                    bool
	NoAddress                                                bool // ipam is {}: a bridge port and nothing else
	Routes                                                   []attach.Route
	Delegate                                                 string // the IPAM plugin that gives the addresses, instead of Sets
	ResolvConf                                               string // file with the pods' DNS settings; empty: none
	LeaseDir, NodeFile                                       string
}

// Parse reads a plugin's configuration; ipRanges is the capability argument of that name, if any. Every mistake is
// reported at once, each with its place, keys that nobody knows included.
func Parse(keys rawjson.Object, ipRanges rawjson.Value) (Config, error) {
	raw := defaults()
	errs := read("", keys, raw.fields(), IsOthers)
	c := Config{
		Bridge: raw.Bridge, MTU: raw.MTU, Force: raw.ForceAddress, Promisc: raw.PromiscMode, Isolated: raw.PortIsolation,
		Routed: raw.LocalRouting == "routed", DAD: raw.DAD, Down: raw.Down, CheckMAC: raw.MACSpoof, CheckSource: raw.SourceCheck, NodeFile: raw.NodeFile,
		Gateway: orTrue(raw.IsGateway), Hairpin: raw.HairpinMode == nil && !raw.PromiscMode || raw.HairpinMode != nil && *raw.HairpinMode,
	}
	errs = append(errs, raw.check()...)
	ipam, more := raw.ipam(&c)
	errs = append(errs, more...)
	errs = append(errs, c.addresses(raw, ipam, ipRanges)...)
	c.Routes, more = routes(ipam.Routes)
	errs = append(errs, more...)
	c.LeaseDir, c.ResolvConf = leaseDir(ipam), ipam.ResolvConf
	if raw.IsDefaultGateway != nil && *raw.IsDefaultGateway {
		c.Gateway = true // as the reference plugin has it
	}
	c.DefaultRoute = c.Gateway && ipam.Routes.IsNull()
	if raw.IsDefaultGateway != nil {
		c.DefaultRoute = *raw.IsDefaultGateway
		c.DefaultAsked = c.DefaultRoute
	}
	if c.NoAddress {
		c.Gateway, c.DefaultRoute = false, false
	}
	if _, v6 := c.Families(); v6 && c.MTU != 0 && c.MTU < attach.LeastMTU6 {
		errs = append(errs, fmt.Errorf("mtu: %d is less than the %d that IPv6 needs", c.MTU, attach.LeastMTU6))
	}
	c.VLAN, more = raw.vlans(c.Gateway)
	errs = append(errs, more...)
	if c.Down && !c.NoAddress {
		errs = append(errs, errors.New(`disableContainerInterface: needs "ipam": {}, as an interface that is left down has no use for an address`))
	}
	if c.CheckSource && len(c.VLAN.Trunk) > 0 {
		errs = append(errs, errors.New("sourceCheck: excludes vlanTrunk, as the addresses that a pod has in a trunk's VLANs are its own choice"))
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Locate reads no more than what is needed to find a pod's things and remove them, from a configuration that may have
// become invalid since they were made: a runtime sends the one of today, and a pod must be removable whatever it says.
func Locate(keys rawjson.Object) Config {
	raw := defaults()
	_ = keys.Read("", raw.fields())
	var ipam rawIPAM
	if o, err := raw.IPAM.Object(); err == nil {
		_ = o.Read("", ipam.fields())
	}
	c := Config{Bridge: raw.Bridge}
	if ipam.elsewhere() {
		c.Delegate, ipam = ipam.Type, rawIPAM{}
	}
	c.LeaseDir = leaseDir(ipam)
	return c
}

func leaseDir(ipam rawIPAM) string {
	if dir := strings.TrimRight(ipam.DataDir, "/"); dir != "" {
		return dir
	}
	return mark.LeaseDir
}

// check refuses what cannot be, or cannot be had.
func (r rawConfig) check() (errs []error) {
	refuse := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(r.Bridge == "" || len(r.Bridge) > 15 || strings.ContainsAny(r.Bridge, "/:% \t\n\v\f\r") || r.Bridge == "." || r.Bridge == "..",
		"bridge: %q is not an interface name", r.Bridge)
	refuse(r.MTU < 0 || r.MTU > 65535 || r.MTU > 0 && r.MTU < 68, "mtu: %d is not between 68 and 65535", r.MTU)
	refuse(r.LocalRouting != "bridge" && r.LocalRouting != "routed", "localRouting: %q is neither bridge nor routed", r.LocalRouting)
	refuse(r.IPMasq || r.IPMasqBackend != "", "ipMasq: pods of this network keep their addresses; remove the key and let the node's pod subnet be routed "+
		"(run routed, or give the router a static route to it); where pods must reach a network that cannot know that route, masquerade on its border")
	refuse(r.PromiscMode && r.HairpinMode != nil && *r.HairpinMode, "hairpinMode: excludes promiscMode, as a frame would come back twice")
	return errs
}

// elsewhere says that another plugin gives the addresses.
func (r rawIPAM) elsewhere() bool { return r.Type != "" && r.Type != "host-local" }

func (r rawConfig) ipam(c *Config) (ipam rawIPAM, errs []error) {
	if r.IPAM.IsNull() {
		return ipam, nil
	}
	o, err := r.IPAM.Object()
	if err != nil {
		return ipam, []error{fmt.Errorf("ipam: %w", err)}
	}
	c.NoAddress = len(o) == 0 && r.Subnet == "" && r.Ranges.IsNull()
	if err := o.Get("type").Decode(&ipam.Type); err == nil && ipam.elsewhere() {
		if r.Subnet != "" || !r.Ranges.IsNull() {
			errs = append(errs, fmt.Errorf("ipam.type: %s gives the addresses, so subnet and ranges say nothing", ipam.Type))
		}
		c.Delegate = ipam.Type
		return rawIPAM{}, errs // the rest of the block is the other plugin's business
	}
	return ipam, read("ipam.", o, ipam.fields(), isOthersInside)
}

// UseSubnets gives a network whose configuration names no subnet the node's own, one set each.
func (c *Config) UseSubnets(subnets []netip.Prefix) error {
	var errs []error
	for i, p := range subnets {
		r, err := pool.NewRange(p, netip.Addr{}, netip.Addr{}, netip.Addr{})
		if err != nil {
			errs = append(errs, fmt.Errorf("podSubnets[%d]: %w", i, err))
		}
		c.Sets = append(c.Sets, pool.Set{r})
	}
	return errors.Join(errs...)
}

// WantsSubnets says that the configuration leaves the subnets to the node.
func (c Config) WantsSubnets() bool { return len(c.Sets) == 0 && !c.NoAddress && c.Delegate == "" }

// Families says which of the two the pods' addresses are of.
func (c Config) Families() (v4, v6 bool) {
	for _, s := range c.Sets {
		v4, v6 = v4 || s[0].Subnet.Addr().Is4(), v6 || s[0].Subnet.Addr().Is6()
	}
	return v4, v6
}

// IsGateway says that a is a gateway of one of the network's ranges.
func (c Config) IsGateway(a netip.Addr) bool {
	for _, set := range c.Sets {
		for _, r := range set {
			if r.Gateway == a {
				return true
			}
		}
	}
	return false
}

// Attach fills a Spec, of which the caller has set what is one pod's, with what the network says of all. A route
// without a gateway goes by the one of its family.
func (c Config) Attach(s attach.Spec) attach.Spec {
	s.Bridge, s.VLAN = c.Bridge, c.VLAN
	s.Gateway, s.DefaultRoute, s.Hairpin, s.Isolated, s.Promisc = c.Gateway, c.DefaultRoute, c.Hairpin, c.Isolated, c.Promisc
	s.Routed, s.Down, s.DAD, s.CheckMAC, s.CheckSource = c.Routed, c.Down, c.DAD, c.CheckMAC, c.CheckSource
	for _, r := range c.Routes {
		if !r.Via.IsValid() {
			for _, a := range s.Addrs {
				if a.Addr.Is4() == r.Dst.Addr().Is4() {
					r.Via = a.Gateway
					break
				}
			}
		}
		r.OnLink = c.Routed && r.Via.IsValid()
		s.Routes = append(s.Routes, r)
	}
	return s
}

// vlans reads the three VLAN keys.
func (r rawConfig) vlans(gateway bool) (v attach.VLANSpec, errs []error) {
	const most = 4094 // IEEE 802.1Q: twelve bits, without the first and the last
	v = attach.VLANSpec{Access: r.VLAN, KeepDefault: r.PreserveDefaultVLAN}
	id := func(place string, n int) {
		if n < 1 || n > most {
			errs = append(errs, fmt.Errorf("%s: %d is not between 1 and %d", place, n, most))
		}
	}
	if r.VLAN != 0 {
		id("vlan", r.VLAN)
	}
	if leg := r.Bridge + "." + strconv.Itoa(r.VLAN); r.VLAN != 0 && gateway && len(leg) > 15 {
		errs = append(errs, fmt.Errorf("vlan: the gateway's interface would be called %s, which is longer than the 15 letters that an interface may have", leg))
	}
	errs = append(errs, each("vlanTrunk", r.VLANTrunk, func(at string, o rawjson.Object) error {
		var one, low, high *int
		fields := []rawjson.Field{{Key: "id", Into: &one}, {Key: "minID", Into: &low}, {Key: "maxID", Into: &high}}
		before := len(errs)
		errs = append(errs, read(at+".", o, fields, isOthersInside)...)
		switch {
		case (low == nil) != (high == nil):
			return fmt.Errorf("%s: minID and maxID go together", at)
		case one == nil && low == nil:
			return fmt.Errorf("%s: has neither id nor minID and maxID", at)
		}
		for _, f := range fields {
			if n := *f.Into.(**int); n != nil {
				id(at+"."+f.Key, *n)
			}
		}
		if errors.Join(errs[before:]...) != nil {
			return nil
		}
		if one != nil {
			v.Trunk = append(v.Trunk, *one)
		}
		if low == nil {
			return nil
		}
		if *low > *high {
			return fmt.Errorf("%s.minID: %d is more than maxID %d", at, *low, *high)
		}
		for n := *low; n <= *high; n++ {
			v.Trunk = append(v.Trunk, n)
		}
		return nil
	})...)
	return v, errs
}

func orTrue(b *bool) bool { return b == nil || *b }

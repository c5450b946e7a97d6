// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
	"github.com/l3edge/l3edge/pkg/edge/cni"
)

// rawConfig is the configuration as written; docs/reference/bridge-l3.md explains every key, and a test compares.
type rawConfig struct {
	Bridge, Subnet, LocalRouting, NodeFile              string
	Ranges, IPAM                                        rawjson.Value
	MTU                                                 int
	IsGateway, IsDefaultGateway, HairpinMode            *bool
	ForceAddress, PromiscMode, PortIsolation, DAD, Down bool
	MACSpoof, SourceCheck                               bool

	IPMasq, PreserveDefaultVLAN bool
	IPMasqBackend               string
	VLAN                        int
	VLANTrunk                   rawjson.Value
}

// field is one key and where its value goes.
type field struct {
	key  string
	into any
}

func (r *rawConfig) fields() []field {
	return []field{
		{"bridge", &r.Bridge}, {"subnet", &r.Subnet}, {"ranges", &r.Ranges}, {"ipam", &r.IPAM}, {"mtu", &r.MTU},
		{"isGateway", &r.IsGateway}, {"isDefaultGateway", &r.IsDefaultGateway}, {"forceAddress", &r.ForceAddress},
		{"hairpinMode", &r.HairpinMode}, {"promiscMode", &r.PromiscMode}, {"portIsolation", &r.PortIsolation},
		{"localRouting", &r.LocalRouting}, {"enabledad", &r.DAD}, {"disableContainerInterface", &r.Down}, {"nodeFile", &r.NodeFile},
		{"ipMasq", &r.IPMasq}, {"ipMasqBackend", &r.IPMasqBackend}, {"vlan", &r.VLAN}, {"vlanTrunk", &r.VLANTrunk},
		{"preserveDefaultVlan", &r.PreserveDefaultVLAN}, {"macspoofchk", &r.MACSpoof}, {"sourceCheck", &r.SourceCheck},
	}
}

// rawRange is one range as host-local writes it.
type rawRange struct{ Subnet, RangeStart, RangeEnd, Gateway string }

func (r *rawRange) fields() []field {
	return []field{{"subnet", &r.Subnet}, {"rangeStart", &r.RangeStart}, {"rangeEnd", &r.RangeEnd}, {"gateway", &r.Gateway}}
}

// rawIPAM is host-local's block, as it stands.
type rawIPAM struct {
	rawRange
	Type, DataDir, ResolvConf string
	Ranges, Routes            rawjson.Value
}

func (r *rawIPAM) fields() []field {
	return append(r.rawRange.fields(), field{"type", &r.Type}, field{"ranges", &r.Ranges}, field{"routes", &r.Routes},
		field{"dataDir", &r.DataDir}, field{"resolvConf", &r.ResolvConf})
}

// read decodes the keys of an object, naming the place of each that does not fit.
func read(place string, o rawjson.Object, fields []field) error {
	var errs []error
	for _, f := range fields {
		if err := o.Get(f.key).Decode(f.into); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", place, f.key, err))
		}
	}
	return errors.Join(errs...)
}

// config is what the verbs work with; Parse makes it, so it is valid.
type config struct {
	Bridge                                                   string
	MTU                                                      int // 0: the bridge's, or the uplink's
	Gateway, DefaultRoute, Force, Hairpin, Promisc, Isolated bool
	DefaultAsked                                             bool // DefaultRoute is not only the default
	Routed, DAD, Down                                        bool
	Sets                                                     []pool.Set // empty: from the node file, unless NoAddress
	CheckMAC, CheckSource                                    bool
	NoAddress                                                bool // ipam is {}: a bridge port and nothing else
	Routes                                                   []attach.Route
	DNS                                                      cni.DNS
	Delegate                                                 string // the IPAM plugin that gives the addresses, instead of Sets
	ResolvConf, LeaseDir, NodeFile                           string
}

// parse reads the plugin's keys. Every mistake is reported at once, each with its place.
func parse(c *cni.Call) (config, error) {
	raw := rawConfig{Bridge: "cni0", LocalRouting: "bridge", NodeFile: mark.NodeFile}
	if err := read("", c.Keys, raw.fields()); err != nil {
		return config{}, cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	conf := config{
		Bridge: raw.Bridge, MTU: raw.MTU, Force: raw.ForceAddress, Promisc: raw.PromiscMode, Isolated: raw.PortIsolation,
		Routed: raw.LocalRouting == "routed", DAD: raw.DAD, Down: raw.Down, CheckMAC: raw.MACSpoof, CheckSource: raw.SourceCheck, NodeFile: raw.NodeFile, DNS: c.Net.DNS,
		Gateway: orTrue(raw.IsGateway), Hairpin: raw.HairpinMode == nil && !raw.PromiscMode || raw.HairpinMode != nil && *raw.HairpinMode,
	}
	errs := raw.check()
	ipam, err := raw.ipam(&conf)
	errs = append(errs, err, conf.addresses(raw, ipam, c))
	conf.Routes, err = routes(ipam.Routes)
	errs = append(errs, err)
	conf.LeaseDir, conf.ResolvConf = mark.LeaseDir, ipam.ResolvConf
	if ipam.DataDir != "" {
		conf.LeaseDir = strings.TrimSuffix(ipam.DataDir, "/")
	}
	if raw.IsDefaultGateway != nil && *raw.IsDefaultGateway {
		conf.Gateway = true // as the reference plugin has it
	}
	conf.DefaultRoute = conf.Gateway && ipam.Routes.IsNull()
	if raw.IsDefaultGateway != nil {
		conf.DefaultRoute = *raw.IsDefaultGateway
		conf.DefaultAsked = conf.DefaultRoute
	}
	if conf.NoAddress {
		conf.Gateway, conf.DefaultRoute = false, false
	}
	if err := errors.Join(errs...); err != nil {
		return config{}, cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	return conf, nil
}

// check refuses what cannot be, or cannot be had.
func (r rawConfig) check() (errs []error) {
	refuse := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(r.Bridge == "" || len(r.Bridge) > 15 || strings.ContainsAny(r.Bridge, "/: \t\n") || r.Bridge == "." || r.Bridge == "..",
		"bridge: %q is not an interface name", r.Bridge)
	refuse(r.MTU < 0 || r.MTU > 65535 || r.MTU > 0 && r.MTU < 68, "mtu: %d is not between 68 and 65535", r.MTU)
	refuse(r.LocalRouting != "bridge" && r.LocalRouting != "routed", "localRouting: %q is neither bridge nor routed", r.LocalRouting)
	refuse(r.IPMasq || r.IPMasqBackend != "", "ipMasq: pods of this network keep their addresses; remove the key and let the node's pod subnet be routed "+
		"(run routed, or give the router a static route to it); where pods must reach a network that cannot know that route, masquerade on its border")
	refuse(r.PromiscMode && r.HairpinMode != nil && *r.HairpinMode, "hairpinMode: excludes promiscMode, as a frame would come back twice")
	const noVLAN = "%s: VLANs on the bridge are not supported; give each VLAN a network with a bridge of its own"
	refuse(r.VLAN != 0, noVLAN, "vlan")
	refuse(!r.VLANTrunk.IsNull() && string(r.VLANTrunk) != "[]", noVLAN, "vlanTrunk")
	return errs
}

func (r rawConfig) ipam(conf *config) (rawIPAM, error) {
	var ipam rawIPAM
	if r.IPAM.IsNull() {
		return ipam, nil
	}
	o, err := r.IPAM.Object()
	if err != nil {
		return ipam, fmt.Errorf("ipam: %w", err)
	}
	if err := o.Get("type").Decode(&ipam.Type); err != nil {
		return ipam, fmt.Errorf("ipam.type: %w", err)
	}
	if ipam.Type == "" || ipam.Type == "host-local" {
		if err := read("ipam.", o, ipam.fields()); err != nil {
			return ipam, err
		}
	}
	conf.NoAddress = len(o) == 0 && r.Subnet == "" && r.Ranges.IsNull()
	if ipam.Type != "" && ipam.Type != "host-local" {
		if r.Subnet != "" || !r.Ranges.IsNull() {
			return ipam, fmt.Errorf("ipam.type: %s gives the addresses, so subnet and ranges say nothing", ipam.Type)
		}
		// The rest of the block is the other plugin's business.
		conf.Delegate, ipam = ipam.Type, rawIPAM{}
	}
	return ipam, nil
}

// addresses collects the range sets from wherever they are written: runtimeConfig.ipRanges, subnet, ranges, ipam.
func (conf *config) addresses(raw rawConfig, ipam rawIPAM, c *cni.Call) error {
	var errs []error
	add := func(place string, set []rawRange) {
		s, err := parseSet(place, set)
		errs = append(errs, err)
		if err == nil && len(s) > 0 {
			conf.Sets = append(conf.Sets, s)
		}
	}
	if raw.Subnet != "" {
		add("subnet", []rawRange{{Subnet: raw.Subnet}})
	}
	if ipam.Subnet != "" {
		add("ipam", []rawRange{ipam.rawRange})
	}
	var asked rawjson.Value
	_, err := c.Runtime("ipRanges", &asked)
	errs = append(errs, err)
	for _, group := range []struct {
		place string
		sets  rawjson.Value
	}{{"runtimeConfig.ipRanges", asked}, {"ranges", raw.Ranges}, {"ipam.ranges", ipam.Ranges}} {
		sets, err := group.sets.Array()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", group.place, err))
		}
		for i, v := range sets {
			place := fmt.Sprintf("%s[%d]", group.place, i)
			set, err := readSet(place, v)
			errs = append(errs, err)
			add(place, set)
		}
	}
	for i, a := range conf.Sets {
		for _, b := range conf.Sets[:i] {
			if overlap(a, b) {
				errs = append(errs, fmt.Errorf("subnet: %s is given twice or overlaps %s", a[0].Subnet, b[0].Subnet))
			}
		}
	}
	return errors.Join(errs...)
}

// families says which of the two the sets are of.
func (conf config) families() (v4, v6 bool) {
	for _, s := range conf.Sets {
		v4, v6 = v4 || s[0].Subnet.Addr().Is4(), v6 || s[0].Subnet.Addr().Is6()
	}
	return v4, v6
}

func overlap(a, b pool.Set) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Subnet.Overlaps(y.Subnet) {
				return true
			}
		}
	}
	return false
}

func readSet(place string, v rawjson.Value) (set []rawRange, err error) {
	list, err := v.Array()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", place, i)
		var r rawRange
		o, err := v.Object()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if err := read(at+".", o, r.fields()); err != nil {
			return nil, err
		}
		set = append(set, r)
	}
	return set, nil
}

func parseSet(place string, raw []rawRange) (pool.Set, error) {
	var set pool.Set
	var errs []error
	for i, r := range raw {
		at := place
		if len(raw) > 1 || strings.HasSuffix(place, "]") {
			at = fmt.Sprintf("%s[%d]", place, i)
		}
		subnet, err := netip.ParsePrefix(r.Subnet)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s is not a prefix", at, r.Subnet))
			continue
		}
		var addrs [3]netip.Addr
		for j, text := range []string{r.RangeStart, r.RangeEnd, r.Gateway} {
			if text == "" {
				continue
			}
			if addrs[j], err = netip.ParseAddr(text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %q is not an address", at, text))
			}
		}
		one, err := pool.NewRange(subnet, addrs[0], addrs[1], addrs[2])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
			continue
		}
		if len(set) > 0 && set[0].Subnet.Addr().Is4() != subnet.Addr().Is4() {
			errs = append(errs, fmt.Errorf("%s: %s is of another family than %s in the same set", at, subnet, set[0].Subnet))
		}
		set = append(set, one)
	}
	return set, errors.Join(errs...)
}

func routes(v rawjson.Value) (out []attach.Route, err error) {
	list, err := v.Array()
	if err != nil {
		return nil, fmt.Errorf("ipam.routes: %w", err)
	}
	var errs []error
	for i, v := range list {
		o, err := v.Object()
		if err == nil {
			var r cni.Route
			r, err = cni.ParseRoute(o)
			out = append(out, toRoute(r))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("ipam.routes[%d]: %w", i, err))
		}
	}
	return out, errors.Join(errs...)
}

func toRoute(r cni.Route) attach.Route {
	return attach.Route{Dst: r.Dst.Masked(), Via: r.GW, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope}
}

// readResolvConf reads the file that host-local's resolvConf names (resolv.conf(5)).
func readResolvConf(path string) (cni.DNS, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return cni.DNS{}, fmt.Errorf("ipam.resolvConf: %w", err)
	}
	var d cni.DNS
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			d.Nameservers = append(d.Nameservers, f[1])
		case "domain":
			d.Domain = f[1]
		case "search":
			d.Search = append(d.Search, f[1:]...)
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
	return d, nil
}

func orTrue(b *bool) bool { return b == nil || *b }

// SPDX-License-Identifier: Apache-2.0

package podnet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
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

// defaults is what holds where nothing is written.
func defaults() rawConfig {
	return rawConfig{Bridge: "cni0", LocalRouting: "bridge", NodeFile: mark.NodeFile}
}

func (r *rawConfig) fields() []rawjson.Field {
	return []rawjson.Field{
		{Key: "bridge", Into: &r.Bridge}, {Key: "subnet", Into: &r.Subnet}, {Key: "ranges", Into: &r.Ranges}, {Key: "ipam", Into: &r.IPAM},
		{Key: "mtu", Into: &r.MTU}, {Key: "isGateway", Into: &r.IsGateway}, {Key: "isDefaultGateway", Into: &r.IsDefaultGateway},
		{Key: "forceAddress", Into: &r.ForceAddress}, {Key: "hairpinMode", Into: &r.HairpinMode}, {Key: "promiscMode", Into: &r.PromiscMode},
		{Key: "portIsolation", Into: &r.PortIsolation}, {Key: "localRouting", Into: &r.LocalRouting}, {Key: "enabledad", Into: &r.DAD},
		{Key: "disableContainerInterface", Into: &r.Down}, {Key: "nodeFile", Into: &r.NodeFile}, {Key: "ipMasq", Into: &r.IPMasq},
		{Key: "ipMasqBackend", Into: &r.IPMasqBackend}, {Key: "vlan", Into: &r.VLAN}, {Key: "vlanTrunk", Into: &r.VLANTrunk},
		{Key: "preserveDefaultVlan", Into: &r.PreserveDefaultVLAN}, {Key: "macspoofchk", Into: &r.MACSpoof}, {Key: "sourceCheck", Into: &r.SourceCheck},
	}
}

// rawRange is one range as host-local writes it.
type rawRange struct{ Subnet, RangeStart, RangeEnd, Gateway string }

func (r *rawRange) fields() []rawjson.Field {
	return []rawjson.Field{{Key: "subnet", Into: &r.Subnet}, {Key: "rangeStart", Into: &r.RangeStart}, {Key: "rangeEnd", Into: &r.RangeEnd}, {Key: "gateway", Into: &r.Gateway}}
}

// rawIPAM is host-local's block, as it stands.
type rawIPAM struct {
	rawRange
	Type, DataDir, ResolvConf string
	Ranges, Routes            rawjson.Value
}

func (r *rawIPAM) fields() []rawjson.Field {
	return append(r.rawRange.fields(), rawjson.Field{Key: "type", Into: &r.Type}, rawjson.Field{Key: "ranges", Into: &r.Ranges},
		rawjson.Field{Key: "routes", Into: &r.Routes}, rawjson.Field{Key: "dataDir", Into: &r.DataDir}, rawjson.Field{Key: "resolvConf", Into: &r.ResolvConf})
}

// others are keys that are not ours and may stand beside ours: the specification's, for one plugin and, as some tools copy
// them down, for the list; and the two that Multus adds to the networks it delegates.
var others = []string{
	"cniVersion", "cniVersions", "name", "type", "args", "dns", "capabilities", "runtimeConfig", "prevResult",
	"disableCheck", "disableGC", "loadOnlyInlinedPlugins", "deviceID", "pciBusID",
}

// IsOthers accepts, besides those, keys that say whose they are (cni.dev/…, io.kubernetes.…) and remarks (_…).
func IsOthers(key string) bool {
	return slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(o, key) }) ||
		strings.ContainsAny(key, "./") || strings.HasPrefix(key, "_")
}

// isOthersInside is IsOthers for the objects inside; host-local knows a name in its block, and makes no use of it.
func isOthersInside(key string) bool {
	return strings.EqualFold(key, "name") || strings.ContainsAny(key, "./") || strings.HasPrefix(key, "_")
}

// read decodes an object's keys and refuses those that nobody knows.
func read(place string, o rawjson.Object, fields []rawjson.Field, also func(string) bool) []error {
	return []error{o.Read(place, fields), o.Unknown(place, fields, also)}
}

// each takes a list apart and calls f with every object in it and its place, place[i].
func each(place string, list rawjson.Value, f func(place string, o rawjson.Object) error) (errs []error) {
	values, err := list.Array()
	if err != nil {
		return []error{fmt.Errorf("%s: %w", place, err)}
	}
	for i, v := range values {
		at := fmt.Sprintf("%s[%d]", place, i)
		o, err := v.Object()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
			continue
		}
		errs = append(errs, f(at, o))
	}
	return errs
}

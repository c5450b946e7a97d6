// SPDX-License-Identifier: Apache-2.0

package podnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

func object(t testing.TB, config string) rawjson.Object {
	t.Helper()
	keys, err := rawjson.ParseObject([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func parse(t testing.TB, config string) (Config, error) { return Parse(object(t, config), nil) }

func keys(fields []rawjson.Field) (out []string) {
	for _, f := range fields {
		out = append(out, f.Key)
	}
	return out
}

func TestTheReferencePageHasEveryKeyAndNoOther(t *testing.T) {
	page, err := os.ReadFile("../../../docs/reference/bridge-l3.md")
	if err != nil {
		t.Fatal(err)
	}
	top, ipam, ok := strings.Cut(string(page), "### Inside `ipam`")
	ipam, _, ok2 := strings.Cut(ipam, "### What a runtime may ask for")
	if !ok || !ok2 {
		t.Fatal("the page has other headings")
	}
	for _, part := range []struct {
		text string
		keys []string
	}{{top, keys(new(rawConfig).fields())}, {ipam, keys(new(rawIPAM).fields())}} {
		rows := map[string]bool{}
		for line := range strings.Lines(part.text) {
			if key, ok := strings.CutPrefix(line, "| `"); ok {
				key, _, _ = strings.Cut(key, "`")
				rows[key] = true
			}
		}
		for _, k := range part.keys {
			if !rows[k] {
				t.Errorf("key %s is not on the page", k)
			}
			delete(rows, k)
		}
		for k := range rows {
			t.Errorf("the page has key %s, the plugin has not", k)
		}
	}
}

func TestMistakesAreNamedAllAtOnceWithTheirPlaces(t *testing.T) {
	_, err := parse(t, `{"bridge":"a/b","mtu":7,"localRouting":"maybe","ipMasq":true,"vlan":5000,"vlanTrunk":[{"minID":3},{},{"id":0},{"minID":9,"maxID":8},7],"subnet":"10.10.10.0/33",
		"ranges":[[{"subnet":"10.0.0.1/24"}],[{"subnet":"10.1.0.0/24","gateway":"10.2.0.1"},{"subnet":"fd00::/64"}]],
		"hairpinMode":true,"promiscMode":true,"ipam":{"routes":[{"gw":"10.0.0.1"}]}}`)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`bridge: "a/b" is not an interface name`, "mtu: 7 is not between", `localRouting: "maybe"`, "ipMasq: pods of this network keep their addresses",
		"vlan: 5000 is not between 1 and 4094", "vlanTrunk[0]: minID and maxID go together", "vlanTrunk[1]: has neither", "vlanTrunk[2].id: 0 is not between", "vlanTrunk[3].minID: 9 is more than maxID 8", "vlanTrunk[4]: 7 is not an object",
		"subnet: 10.10.10.0/33 is not a prefix", "ranges[0][0].subnet: 10.0.0.1/24 has host bits set: did you mean 10.0.0.0/24?",
		"ranges[1][0].gateway: 10.2.0.1 is not in 10.1.0.0/24", "hairpinMode: excludes", "ipam.routes[0].dst: missing",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestWhatTheKeysMean(t *testing.T) {
	rows := []struct {
		name, config string
		ok           func(Config) bool
	}{
		{"host-local's block as it stands", `{"ipam":{"type":"host-local","subnet":"10.1.0.0/16","rangeStart":"10.1.5.1","gateway":"10.1.0.9","dataDir":"/var/x/"}}`,
			func(c Config) bool {
				return len(c.Sets) == 1 && c.Sets[0][0].First.String() == "10.1.5.1" && c.Sets[0][0].Gateway.String() == "10.1.0.9" && c.LeaseDir == "/var/x"
			}},
		{"host-local's ranges of two families", `{"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.1.0/24"}],[{"subnet":"fd00:88:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`,
			func(c Config) bool { return len(c.Sets) == 2 && !c.DefaultRoute && len(c.Routes) == 1 }},
		{"routes and a default gateway besides", `{"isDefaultGateway":true,"ipam":{"routes":[{"dst":"10.0.0.0/8"}]}}`, func(c Config) bool { return c.DefaultRoute }},
		{"no gateway, so no default route", `{"isGateway":false}`, func(c Config) bool { return !c.DefaultRoute && !c.Gateway }},
		{"a default gateway is a gateway", `{"isGateway":false,"isDefaultGateway":true}`, func(c Config) bool { return c.DefaultRoute && c.Gateway }},
		{"an empty ipam block asks for a port only", `{"ipam":{}}`, func(c Config) bool { return c.NoAddress && !c.Gateway }},
		{"promiscuous, so no hairpin", `{"promiscMode":true}`, func(c Config) bool { return c.Promisc && !c.Hairpin }},
		{"binding to the MAC", `{"macspoofchk":true,"enabledad":true}`, func(c Config) bool { return c.CheckMAC && !c.CheckSource && c.DAD }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, err := parse(t, row.config)
			if err != nil || !row.ok(c) {
				t.Errorf("%v: %+v", err, c)
			}
		})
	}
}

func TestAnInterfaceThatIsLeftDownHasNoAddress(t *testing.T) {
	for config, ok := range map[string]bool{
		`{"disableContainerInterface":true}`: false, `{"disableContainerInterface":true,"ipam":{"type":"elsewhere"}}`: false,
		`{"disableContainerInterface":true,"ipam":{}}`: true, `{"disableContainerInterface":false}`: true,
	} {
		if c, err := parse(t, config); (err == nil) != ok || ok && c.Down != c.NoAddress {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestRoutesThatCannotBe(t *testing.T) {
	_, err := parse(t, `{"ipam":{"routes":[{"dst":"10.0.0.0/8","gw":"fd00::1","mtu":-1,"advmss":70000,"table":-1,"scope":256},{"dst":5,"gw":"x"},7]}}`)
	want := `ipam.routes[0].gw: fd00::1 is of another family than dst 10.0.0.0/8
ipam.routes[0].mtu: -1 is not between 0 and 65535
ipam.routes[0].advmss: 70000 is not between 0 and 65535
ipam.routes[0].table: -1 is not between 0 and 4294967295
ipam.routes[0].scope: 256 is not between 0 and 255
ipam.routes[1].dst: 5 is not a text
ipam.routes[1].gw: "x" is not an address
ipam.routes[2]: 7 is not an object`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestRangesThatCannotBe(t *testing.T) {
	for config, want := range map[string]string{
		`{"ipam":{"subnet":"::ffff:10.0.0.0/120"}}`:                                                                        "ipam.subnet: ::ffff:10.0.0.0/120 is not a prefix",
		`{"ipam":{"gateway":"10.0.0.1"}}`:                                                                                  "ipam.subnet: missing",
		`{"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1","gateway":"fd00::1"}]]}`:                              "ranges[0][0].gateway: fd00::1 is not in 10.0.0.0/24\nranges[0][0].rangeStart: 10.0.1.1 is not in 10.0.0.0/24",
		`{"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}]]}`:                            "ranges[0][0].rangeEnd: 10.0.0.8 is before rangeStart 10.0.0.9",
		`{"subnet":"10.0.0.0/8","ranges":[[{"subnet":"10.1.0.0/16"}]]}`:                                                    "subnet: 10.1.0.1 to 10.1.255.254 of 10.1.0.0/16 overlaps 10.0.0.1 to 10.255.255.254 of 10.0.0.0/8, so that an address could be given twice",
		`{"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.20"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.20"}]]}`: "subnet: 10.0.0.20 to 10.0.0.254 of 10.0.0.0/24 overlaps 10.0.0.1 to 10.0.0.20 of 10.0.0.0/24, so that an address could be given twice",
		`{"subnet":"127.0.0.0/24"}`:                                                                                        "subnet: 127.0.0.0/24 holds addresses that no pod can have, of 127.0.0.0/8",
		`{"mtu":1000,"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]}`:                                      "mtu: 1000 is less than the 1280 that IPv6 needs",
		`{"bridge":"zz%d","subnet":"10.0.0.0/24"}`:                                                                         `bridge: "zz%d" is not an interface name`,
		`{"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]}`:                                                   "ranges[0][1].subnet: fd00::/64 is of another family than 10.0.0.0/24 in the same set",
		`{"ranges":[{"subnet":"10.0.0.0/24"}]}`:                                                                            `ranges[0]: {"subnet":"10.0.0.0/24"} is not a list`,
	} {
		if _, err := parse(t, config); err == nil || err.Error() != want {
			t.Errorf("%s:\n%v, want\n%s", config, err, want)
		}
	}
}

// TestTwoSetsOfOneSubnet: host-local gives a pod an address of each.
func TestTwoSetsOfOneSubnet(t *testing.T) {
	c, err := parse(t, `{"mtu":1000,"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.19"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.20"}]]}`)
	if err != nil || len(c.Sets) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	a := attach.Decide(c.Attach(attach.Spec{IfName: "eth0", MTU: 1000, Addrs: []attach.Addr{
		{Addr: netip.MustParseAddr("10.0.0.2"), Subnet: c.Sets[0][0].Subnet, Gateway: c.Sets[0][0].Gateway},
		{Addr: netip.MustParseAddr("10.0.0.20"), Subnet: c.Sets[1][0].Subnet, Gateway: c.Sets[1][0].Gateway},
	}}))
	if len(a.Bridge.Addrs) != 1 || len(a.Pod.Addrs) != 2 || len(a.Pod.Routes) != 1 {
		t.Errorf("%s", a)
	}
}

func TestVLANs(t *testing.T) {
	for config, want := range map[string]string{
		`{"vlan":5}`: "{5 [] false}", `{"vlan":5,"preserveDefaultVlan":true}`: "{5 [] true}", `{"vlanTrunk":[]}`: "{0 [] false}",
		`{"vlanTrunk":[{"id":7},{"minID":10,"maxID":12},{"ID":20,"minid":30,"maxId":30}]}`: "{0 [7 10 11 12 20 30] false}",
	} {
		if c, err := parse(t, config); err != nil || fmt.Sprint(c.VLAN) != want {
			t.Errorf("%s: %v, %v, want %s", config, c.VLAN, err, want)
		}
	}
	for config, want := range map[string]string{
		`{"bridge":"bridge-of-pods","vlan":5}`:            "vlan: the gateway's interface would be called bridge-of-pods.5",
		`{"sourceCheck":true,"vlanTrunk":[{"id":7}]}`:     "sourceCheck: excludes vlanTrunk",
		`{"vlan":"5","vlanTrunk":{},"ipam":{"ranges":5}}`: "vlan: \"5\" is not a number\nipam.ranges: 5 is not a list\nvlanTrunk: {} is not a list",
	} {
		if _, err := parse(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

// TestKeysThatNobodyKnows: a typing mistake must not pass for a wish that is fulfilled; what others may add must pass.
func TestKeysThatNobodyKnows(t *testing.T) {
	for config, want := range map[string]string{
		`{"brigde":"x"}`: "brigde: there is no such key; did you mean bridge?",
		`{"ipam":{"type":"host-local","rangestart2":"x"}}`:          "ipam.rangestart2: there is no such key; did you mean rangeStart?",
		`{"ipam":{"routes":[{"dst":"10.0.0.0/8","gateway":"x"}]}}`:  "ipam.routes[0].gateway: there is no such key",
		`{"ranges":[[{"subnet":"10.0.0.0/8","start":"10.0.0.9"}]]}`: "ranges[0][0].start: there is no such key",
		`{"vlanTrunk":[{"id":5,"vid":6}]}`:                          "vlanTrunk[0].vid: there is no such key",
		`{"portMappings":[]}`:                                       "portMappings: there is no such key",
	} {
		if _, err := parse(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
	for _, config := range []string{
		`{"cniVersion":"1.1.0","cniVersions":[],"name":"n","type":"bridge-l3","args":{"podman_labels":{}},"dns":{},"capabilities":{"ips":true},"runtimeConfig":{"x":1},"prevResult":{}}`,
		`{"disableCheck":true,"disableGC":true,"loadOnlyInlinedPlugins":true,"cni.dev/valid-attachments":[],"io.kubernetes.cri.pod-annotations":{}}`,
		`{"_comment":"why","deviceID":"0000:00:01.0","pciBusID":"x"}`,
		`{"BRIDGE":"x","isgateway":true,"MTU":1400,"ipam":{"Type":"host-local","Name":"n","SUBNET":"10.0.0.0/8","_why":1}}`,
		`{"ipam":{"type":"whereabouts","range":"10.0.0.0/8","anything":[1]}}`,
	} {
		if _, err := parse(t, config); err != nil {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// TestLocateNeedsNothingToBeRight: DEL and GC work whatever the configuration says today.
func TestLocateNeedsNothingToBeRight(t *testing.T) {
	for config, want := range map[string]string{
		`{}`: "cni0 /run/l3edge/leases ", `{"bridge":5,"mtu":"x","subnet":7,"ipam":[],"nonsense":1}`: "cni0 /run/l3edge/leases ",
		`{"bridge":"br","ipam":{"type":5,"dataDir":"/x//","ranges":7}}`: "br /x ", `{"ipam":{"type":"else","dataDir":"/x"}}`: "cni0 /run/l3edge/leases else",
		`{"ipam":{"dataDir":"/"}}`: "cni0 /run/l3edge/leases ",
	} {
		c := Locate(object(t, config))
		if got := c.Bridge + " " + c.LeaseDir + " " + c.Delegate; got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func TestTheNodesSubnets(t *testing.T) {
	c, err := parse(t, `{}`)
	if err != nil || !c.WantsSubnets() {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := c.UseSubnets([]netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParsePrefix("fd00:10::/64")}); err != nil {
		t.Fatal(err)
	}
	v4, v6 := c.Families()
	if !v4 || !v6 || c.WantsSubnets() || !c.IsGateway(netip.MustParseAddr("fd00:10::1")) || c.IsGateway(netip.MustParseAddr("10.10.10.2")) {
		t.Errorf("%+v", c)
	}
	if err := new(Config).UseSubnets([]netip.Prefix{netip.MustParsePrefix("10.10.10.1/24"), {}}); err == nil || strings.Count(err.Error(), "podSubnets[") != 2 {
		t.Errorf("wrong subnets: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"subnet":"10.0.0.0/8","ipam":{"ranges":[[{"subnet":"fd00::/1"}]],"routes":[{"dst":"::/0"}]}}`, `[[{"subnet":"10.5.0.0/24"}]]`)
	f.Fuzz(func(t *testing.T, config, ipRanges string) {
		keys, err := rawjson.ParseObject([]byte(config))
		if err != nil {
			return
		}
		if !json.Valid([]byte(ipRanges)) {
			ipRanges = ""
		}
		Locate(keys)
		c, err := Parse(keys, rawjson.Value(strings.TrimSpace(ipRanges)))
		if err != nil {
			return
		}
		for _, set := range c.Sets {
			n := 0
			for a := range set.After(set[0].Gateway) {
				if _, ok := set.Find(a); !ok {
					t.Fatalf("%s may not be given, but is walked over: %v", a, set)
				}
				if n++; n == 1000 {
					break
				}
			}
		}
		for _, v := range c.VLAN.Trunk {
			if v < 1 || v > 4094 {
				t.Fatalf("VLAN %d", v)
			}
		}
		c.Attach(attach.Spec{})
	})
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/cni"
)

func call(t testing.TB, config string) *cni.Call {
	t.Helper()
	c := &cni.Call{Command: "ADD", ContainerID: "x", IfName: "eth0"}
	if err := c.ReadConfig([]byte(config)); err != nil {
		t.Fatal(err)
	}
	return c
}

func keys(fields []field) (out []string) {
	for _, f := range fields {
		out = append(out, f.key)
	}
	return out
}

func TestTheReferencePageHasEveryKeyAndNoOther(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/bridge-l3.md")
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

func TestTheSampleIsUnderstood(t *testing.T) {
	text, err := os.ReadFile("../../conf/10-l3edge.conflist")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion  string
		CNIVersions []string
		Name        string
		Plugins     []json.RawMessage
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if list.Name == "" || list.CNIVersion != "1.0.0" || len(list.CNIVersions) != 2 || len(list.Plugins) != 2 {
		t.Errorf("sample: %+v", list)
	}
	conf, err := parse(call(t, string(list.Plugins[0])))
	if err != nil {
		t.Fatal(err)
	}
	if conf.Bridge != "cni0" || !conf.Gateway || !conf.DefaultRoute || !conf.Hairpin || len(conf.Sets) != 0 {
		t.Errorf("sample: %+v", conf)
	}
}

func TestMistakesAreNamedAllAtOnceWithTheirPlaces(t *testing.T) {
	_, err := parse(call(t, `{"bridge":"a/b","mtu":7,"localRouting":"maybe","ipMasq":true,"vlan":5,"subnet":"10.10.10.0/33",
		"ranges":[[{"subnet":"10.0.0.1/24"}],[{"subnet":"10.1.0.0/24","gateway":"10.2.0.1"},{"subnet":"fd00::/64"}]],
		"hairpinMode":true,"promiscMode":true,"ipam":{"routes":[{"gw":"10.0.0.1"}]}}`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`bridge: "a/b" is not an interface name`, "mtu: 7 is not between", `localRouting: "maybe"`, "ipMasq: pods of this network keep their addresses",
		"vlan: VLANs", "subnet: 10.10.10.0/33 is not a prefix", "ranges[0][0]: subnet: 10.0.0.1/24 has host bits set: did you mean 10.0.0.0/24?",
		"ranges[1][0]: gateway: 10.2.0.1 is not in 10.1.0.0/24", "hairpinMode: excludes", "ipam.routes[0]: dst: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestWhatTheKeysMean(t *testing.T) {
	rows := []struct {
		name, config string
		ok           func(config) bool
	}{
		{"host-local's block as it stands", `{"ipam":{"type":"host-local","subnet":"10.1.0.0/16","rangeStart":"10.1.5.1","gateway":"10.1.0.9","dataDir":"/var/x/"}}`,
			func(c config) bool {
				return len(c.Sets) == 1 && c.Sets[0][0].First.String() == "10.1.5.1" && c.Sets[0][0].Gateway.String() == "10.1.0.9" && c.LeaseDir == "/var/x"
			}},
		{"host-local's ranges of two families", `{"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.1.0/24"}],[{"subnet":"fd00:88:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`,
			func(c config) bool { return len(c.Sets) == 2 && !c.DefaultRoute && len(c.Routes) == 1 }},
		{"routes and a default gateway besides", `{"isDefaultGateway":true,"ipam":{"routes":[{"dst":"10.0.0.0/8"}]}}`, func(c config) bool { return c.DefaultRoute }},
		{"no gateway, so no default route", `{"isGateway":false}`, func(c config) bool { return !c.DefaultRoute && !c.Gateway }},
		{"a default gateway is a gateway", `{"isGateway":false,"isDefaultGateway":true}`, func(c config) bool { return c.DefaultRoute && c.Gateway }},
		{"an empty ipam block asks for a port only", `{"ipam":{}}`, func(c config) bool { return c.NoAddress && !c.Gateway }},
		{"promiscuous, so no hairpin", `{"promiscMode":true}`, func(c config) bool { return c.Promisc && !c.Hairpin }},
		{"ranges of the runtime", `{"runtimeConfig":{"ipRanges":[[{"subnet":"10.5.0.0/24"}]]}}`, func(c config) bool { return len(c.Sets) == 1 }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, err := parse(call(t, row.config))
			if err != nil || !row.ok(c) {
				t.Errorf("%v: %+v", err, c)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"subnet":"10.0.0.0/8","ipam":{"ranges":[[{"subnet":"fd00::/1"}]],"routes":[{"dst":"::/0"}]}}`, "IP=10.0.0.1;MAC=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, config, args string) {
		c := &cni.Call{ContainerID: "x", IfName: "eth0", Args: map[string]string{"IP": args, "MAC": args}}
		if c.ReadConfig([]byte(config)) != nil {
			return
		}
		conf, err := parse(c)
		if err != nil {
			return
		}
		for _, set := range conf.Sets {
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
		_, _ = requested(c)
		locate(c)
	})
}

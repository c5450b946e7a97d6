// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

func call(t testing.TB, config string) *cni.Call {
	t.Helper()
	c := &cni.Call{Command: "ADD", ContainerID: "x", IfName: "eth0"}
	if err := c.ReadConfig([]byte(config)); err != nil {
		t.Fatal(err)
	}
	return c
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
	conf, _, err := parse(call(t, string(list.Plugins[0])))
	if err != nil {
		t.Fatal(err)
	}
	if conf.Bridge != "cni0" || !conf.Gateway || !conf.DefaultRoute || !conf.Hairpin || len(conf.Sets) != 0 {
		t.Errorf("sample: %+v", conf)
	}
}

// TestMistakesOfConfigurationAndRequestAtOnce: a runtime shows one message, so it has to have everything.
func TestMistakesOfConfigurationAndRequestAtOnce(t *testing.T) {
	c := call(t, `{"mtu":"1500","isGatway":true,"ipam":{"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":7}]]},"runtimeConfig":{"ips":["ten"],"mac":5},"args":{"cni":{"mac":"x"}}}`)
	c.Args = map[string]string{"IP": "10.0.0.300"}
	err := problems(c)
	if err == nil {
		t.Fatal("accepted")
	}
	want := `mtu: "1500" is not a number
isGatway: there is no such key; did you mean isGateway?
ipam.ranges[0][1].subnet: 7 is not a text
runtimeConfig.mac: 5 is not a text
runtimeConfig.ips: "ten" is not an address
CNI_ARGS IP: "10.0.0.300" is not an address
args.cni.mac: "x" is not a MAC address`
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSubnetFromTheNodeFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.json")
	l := newLab(t, fmt.Sprintf(`"nodeFile":%q`, file))
	p := l.pod("a")
	l.refused("ADD", p, 50, "is routed running?")
	say := func(subnets ...string) {
		t.Helper()
		n := node.Node{Name: "kubminion1"}
		for _, s := range subnets {
			n.PodSubnets = append(n.PodSubnets, netip.MustParsePrefix(s))
		}
		if err := nodefile.Write(file, n); err != nil {
			t.Fatal(err)
		}
	}
	say()
	l.refused("ADD", p, 50, "names none")
	// A pod that the runtime makes before routed has said anything.
	early := time.AfterFunc(300*time.Millisecond, func() { say("10.10.10.0/24", "fd00:10::/64") })
	defer early.Stop()
	if got := addresses(l.add(p)); got != "10.10.10.2/24 fd00:10::2/64" {
		t.Errorf("addresses %s", got)
	}
	l.must("CHECK", p)
	reach(t, p.ns, l.node, "fd00:10::1")
	if out := nstest.Run(t, l.node, "ip", "-br", "addr", "show", "cni0"); !strings.Contains(out, "fd00:10::1/64") {
		t.Errorf("bridge:\n%s", out)
	}
	l.must("DEL", p)
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add(`{"subnet":"10.0.0.0/8","ipam":{"ranges":[[{"subnet":"fd00::/1"}]],"routes":[{"dst":"::/0"}]}}`, "IP=10.0.0.1;MAC=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, config, args string) {
		c := &cni.Call{ContainerID: "x", IfName: "eth0", Args: map[string]string{"IP": args, "MAC": args}}
		if c.ReadConfig([]byte(config)) != nil {
			return
		}
		if conf, _, err := parse(c); err == nil {
			conf.Attach(spec(c, conf, 1500, nil, nil))
		} else if strings.TrimSpace(err.Error()) == "" {
			t.Error("an error without words")
		}
		podnet.Locate(c.Keys)
	})
}

// SPDX-License-Identifier: Apache-2.0

package mlsconf

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func article() Switch {
	p := netip.MustParsePrefix
	return Switch{
		ASN: 64512, RouterID: netip.MustParseAddr("10.20.30.1"), Segments: []netip.Prefix{p("10.20.30.1/24"), p("192.168.10.1/24")},
		Cluster: p("10.10.0.0/16"), NodeBits: 24, MaxNodes: 100, MaxPaths: 64, MaxIn: 8, Hold: 9,
	}
}

// full has everything switched on.
func full() Switch {
	s := article()
	s.Portal, s.BFD, s.Password, s.NodeASN = netip.MustParsePrefix("10.100.0.0/16"), 300, "s3cret", 64600
	return s
}

func TestRender(t *testing.T) {
	for _, vendor := range Vendors {
		for name, s := range map[string]Switch{"plain": article(), "full": full()} {
			if vendor == "iosxe" && name == "plain" {
				s.NodeASN = 64600
			}
			t.Run(vendor+" "+name, func(t *testing.T) {
				got, err := Render(vendor, s)
				if err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", vendor+"."+name)
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		}
	}
}

// Whatever the vendor: the same limits, and nothing of a node that the switch should learn.
func TestEveryConfigurationSaysTheSame(t *testing.T) {
	for _, vendor := range Vendors {
		got, err := Render(vendor, full())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"64512", "10.20.30.1", "10.20.30.0/24", "192.168.10.0/24", "10.10.0.0/16", "24", "10.100.0.0/16", "s3cret", "300", "64600", "64", "8"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %s:\n%s", vendor, want, got)
			}
		}
		if strings.Contains(got, "10.10.10.0/24") {
			t.Errorf("%s knows a node's prefix, which it must learn", vendor)
		}
	}
}

func TestValidate(t *testing.T) {
	s := article()
	s.Segments[0] = s.Segments[0].Masked()
	s.ASN, s.Portal, s.Password = 0, netip.MustParsePrefix("10.10.0.0/17"), "a b"
	_, err := Render("junos", s)
	want := `asn: missing
segment[0]: 10.20.30.0/24 names the network; give the switch's own address in it, such as 10.20.30.1/24
portal: 10.10.0.0/17 overlaps the cluster's 10.10.0.0/16
password: has a blank, a quote, a question mark, a semicolon or a brace`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := Render("iosxe", article()); err == nil || !strings.Contains(err.Error(), "node-asn: IOS XE") {
		t.Errorf("iosxe without an AS number: %v", err)
	}
	if _, err := Render("cisco", article()); err == nil || !strings.Contains(err.Error(), `vendor: "cisco" is none of bird,`) {
		t.Errorf("an unknown vendor: %v", err)
	}
}

func TestMigrate(t *testing.T) {
	statics := []Static{{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParseAddr("10.20.30.62")}}
	for vendor, want := range map[string]string{
		"frr": "no ip route 10.10.10.0/24 10.20.30.62", "iosxe": "no ip route 10.10.10.0 255.255.255.0 10.20.30.62", "junos": "delete routing-options static route 10.10.10.0/24",
	} {
		if got := Migrate(vendor, statics); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in\n%s", vendor, want, got)
		}
	}
	for _, v := range Vendors {
		if vendorWords[v] == (words{}) {
			t.Errorf("%s has no words", v)
		}
	}
}

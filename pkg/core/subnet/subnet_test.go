// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"net/netip"
	"testing"
)

func TestFirstLast(t *testing.T) {
	for _, tt := range []struct{ prefix, first, last string }{
		{"10.10.10.0/24", "10.10.10.1", "10.10.10.255"},
		{"10.10.10.7/24", "10.10.10.1", "10.10.10.255"},
		{"10.0.0.0/30", "10.0.0.1", "10.0.0.3"},
		{"10.0.0.4/31", "10.0.0.4", "10.0.0.5"},
		{"10.0.0.4/32", "10.0.0.4", "10.0.0.4"},
		{"fd00:10::/64", "fd00:10::1", "fd00:10::ffff:ffff:ffff:ffff"},
	} {
		p := netip.MustParsePrefix(tt.prefix)
		if got := First(p).String(); got != tt.first {
			t.Errorf("First(%s) = %s, want %s", p, got, tt.first)
		}
		if got := Last(p).String(); got != tt.last {
			t.Errorf("Last(%s) = %s, want %s", p, got, tt.last)
		}
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"10.10.10.0/24": "",
		"10.10.10.1/24": "10.10.10.1/24 has host bits set: did you mean 10.10.10.0/24?",
		"10.10.10.0/33": `"10.10.10.0/33" is not a prefix`,
		"":              `"" is not a prefix`,
	} {
		_, err := Parse(in)
		if got := errText(err); got != want {
			t.Errorf("Parse(%q): %q, want %q", in, got, want)
		}
	}
}

func TestOverlapContains(t *testing.T) {
	p := netip.MustParsePrefix
	if a, b, ok := Overlap([]netip.Prefix{p("10.100.0.0/16")}, []netip.Prefix{p("10.10.10.0/24"), p("10.100.4.0/24")}); !ok || a != p("10.100.0.0/16") || b != p("10.100.4.0/24") {
		t.Errorf("Overlap = %s %s %t", a, b, ok)
	}
	if _, _, ok := Overlap([]netip.Prefix{p("10.100.0.0/16")}, []netip.Prefix{p("10.10.10.0/24")}); ok {
		t.Error("disjoint prefixes overlap")
	}
	if Contains(p("10.10.10.0/24"), p("10.10.0.0/16")) || !Contains(p("10.10.0.0/16"), p("10.10.10.0/24")) {
		t.Error("Contains mixes up outer and inner")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

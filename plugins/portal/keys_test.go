// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestKeysOfPortmap: what limits a port, or would change what the pod sees, must not be passed over. What is made must be
// removable all the same.
func TestKeysOfPortmap(t *testing.T) {
	w := newWorld(t)
	for keys, want := range map[string]string{
		`"snat":true,"masqAll":false,"conditionsV4":[],"conditionsV6":null,"backend":"nftables","markMasqBit":null`: "",
		`"_why":"x","cni.dev/x":1,"capabilities":{"portMappings":true},"args":{}`:                                   "",
		`"conditionsV4":["-s","10.0.0.0/8"],"masqAll":true`:                                                         `masqAll: pods see the true client; remove the key, and let the answers come back by this node\nconditionsV4: portal does not limit`,
		`"snat":false`:                            "snat: ",
		`"conditionsV6":["-s","fd00::/8"]`:        "conditionsV6: ",
		`"markMasqBit":13`:                        "markMasqBit: ",
		`"externalSetMarkChain":"KUBE-MARK-MASQ"`: "externalSetMarkChain: ",
		`"backend":"iptables"`:                    `backend: \"iptables\" is not to be had`,
		`"portalSocket":"/x"`:                     "portalSocket: there is no such key; did you mean portaldSocket?",
		`"portaldSocket":7`:                       "portaldSocket: 7 is not a text",
	} {
		config := "," + keys + ports(web80) + withPrev("web")
		for _, command := range []string{"ADD", "CHECK"} {
			code, out := w.call(command, "web", config)
			if (code == 0) != (want == "") || !strings.Contains(out, want) {
				t.Errorf("%s with %s: %d %s, want %s", command, keys, code, out, want)
			}
		}
		if want != "" {
			if code, out := w.call("STATUS", "", ","+keys); code == 0 || !strings.Contains(out, `"code":50`) {
				t.Errorf("STATUS with %s: %d %s", keys, code, out)
			}
		}
		w.must("DEL", "web", config)
		w.must("GC", "", ","+keys+`,"cni.dev/valid-attachments":[]`)
	}
	if code, out := w.call("ADD", "web", `,"bogus":1`+ports(`{"hostPort":70000,"containerPort":80}`)+withPrev("web")); code == 0 ||
		!strings.Contains(out, `bogus: there is no such key\nruntimeConfig.portMappings[0].hostPort: 70000 is not a port`) {
		t.Errorf("not all mistakes at once: %s", out)
	}
}

func TestAPodWithoutAnAddress(t *testing.T) {
	w := newWorld(t)
	none := `,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}]}`
	if code, out := w.call("ADD", "web", ports(web80)+none); code == 0 || !strings.Contains(out, "portMappings[0].hostPort: the pod has no address to lead it to") {
		t.Errorf("%d %s", code, out)
	}
}

// TestADamagedRecordStandsInNobodysWay: the kernel knows who has which port.
func TestADamagedRecordStandsInNobodysWay(t *testing.T) {
	w := newWorld(t)
	config := ports(web80) + withPrev("web")
	spoil := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.records, "net", "id-web:eth0"), []byte("6 0.0.0.0:80 10.1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, end := range map[string]func(){
		"DEL": func() { w.must("DEL", "web", config) },
		"GC":  func() { w.must("GC", "", `,"cni.dev/valid-attachments":[]`) },
		"ADD": func() { w.must("ADD", "web", config); w.must("DEL", "web", config) },
	} {
		w.must("ADD", "web", config)
		w.must("ADD", "other", ports(`{"hostPort":81,"containerPort":80}`)+withPrev("other"))
		spoil()
		end()
		if left := strings.Join(w.left(), " "); strings.Contains(left, "web") || strings.Contains(left, "10.10.10.2") {
			t.Errorf("%s left %s", name, left)
		}
		w.must("DEL", "other", "")
	}
}

// TestOtherPortsOfTheSameAttachment: what an earlier ADD published and this one does not is taken back.
func TestOtherPortsOfTheSameAttachment(t *testing.T) {
	w := newWorld(t)
	w.must("ADD", "web", ports(`{"hostPort":80,"containerPort":80},{"hostPort":81,"containerPort":80}`)+withPrev("web"))
	w.must("ADD", "web", ports(`{"hostPort":81,"containerPort":80},{"hostPort":82,"containerPort":80}`)+withPrev("web"))
	for port, want := range map[string]bool{"80": false, "81": true, "82": true} {
		if got := w.ask(w.out, "tcp", "10.20.30.62:"+port); strings.HasPrefix(got, "web ") != want {
			t.Errorf("port %s: %s", port, got)
		}
	}
	w.must("DEL", "web", "")
	if left := w.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestLocalhostIsClosedAgain: with the last port, where we opened it.
func TestLocalhostIsClosedAgain(t *testing.T) {
	w := newWorld(t)
	opened := func() string {
		return strings.TrimSpace(nstest.Sh(t, w.node, "cat /proc/sys/net/ipv4/conf/docker0/route_localnet"))
	}
	both := func() {
		w.must("ADD", "web", ports(web80)+withPrev("web"))
		w.must("ADD", "other", ports(`{"hostPort":81,"containerPort":80}`)+withPrev("other"))
		if opened() != "1" {
			t.Errorf("with ports: %s", opened())
		}
	}
	both()
	w.must("DEL", "web", "")
	if got := w.ask(w.node, "tcp", "127.0.0.1:81"); !strings.HasPrefix(got, "other ") || opened() != "1" {
		t.Errorf("with one pod's ports left: %s, %s", got, opened())
	}
	marks := func() string {
		all, err := filepath.Glob(filepath.Join(w.records, localnetMark+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.Join(all, " "), w.records+"/", "")
	}
	if got := marks(); got != localnetMark+"docker0" {
		t.Errorf("noted: %s", got)
	}
	if err := touch(filepath.Join(w.records, localnetMark+"vgone")); err != nil { // of a pod without a bridge
		t.Fatal(err)
	}
	w.must("ADD", "web", ports(web80)+withPrev("web"))
	w.must("DEL", "web", "")
	if got := marks(); got != localnetMark+"docker0" {
		t.Errorf("noted of an interface that is gone: %s", got)
	}
	w.must("DEL", "other", "")
	if opened() != "0" || marks() != "" {
		t.Errorf("after the last: %s, noted: %s", opened(), marks())
	}
	both()
	w.must("GC", "", `,"cni.dev/valid-attachments":[]`)
	if opened() != "0" {
		t.Errorf("after GC: %s", opened())
	}
	nstest.Sh(t, w.node, "echo 1 >/proc/sys/net/ipv4/conf/docker0/route_localnet") // somebody else's wish
	both()
	w.must("DEL", "web", "")
	w.must("DEL", "other", "")
	if opened() != "1" {
		t.Errorf("others' setting: %s", opened())
	}
}

func TestLongContainerIDsAreRemovable(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{240, 247, 250, 300} {
		w.must("DEL", strings.Repeat("f", n), "")
	}
}

// TestPageKnowsPortmapsKeys has each key in the table of the reference page.
func TestPageKnowsPortmapsKeys(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/portal.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range new(rawConfig).fields() {
		if !strings.Contains(string(page), "\n| `"+f.Key+"` |") {
			t.Errorf("docs/reference/portal.md lacks %s", f.Key)
		}
	}
}

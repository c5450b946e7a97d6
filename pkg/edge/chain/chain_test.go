// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const conflist = `{"cniVersion":"1.0.0","name":"l3edge","plugins":[
{"type":"first","bridge":"cni0","capabilities":{"ips":true}},
{"type":"second","capabilities":{"portMappings":true}}]}`

// record writes a cache of one attachment and a directory of plugins that say how they were called.
func record(t *testing.T, second string) (cache, bin string) {
	t.Helper()
	cache, bin = t.TempDir(), t.TempDir()
	text, err := json.Marshal(map[string]any{
		"kind": "cniCacheV1", "containerId": "0a1b", "ifName": "eth0", "networkName": "l3edge", "netns": "/run/netns/x", "config": []byte(conflist),
		"cniArgs": [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}}, "capabilityArgs": map[string]any{"portMappings": []any{map[string]any{"hostPort": 80}}},
		"result": map[string]any{"cniVersion": "1.0.0", "ips": []any{map[string]any{"address": "10.10.10.2/24"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		filepath.Join(cache, "l3edge-0a1b-eth0"): string(text), filepath.Join(cache, "note"): `{"kind":"something else"}`,
		filepath.Join(bin, "first"): "#!/bin/sh\ncat > $0.in; echo $CNI_COMMAND $CNI_ARGS >> $0.log\n", filepath.Join(bin, "second"): "#!/bin/sh\n" + second,
	} {
		if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return cache, bin
}

func TestCheckCallsEveryPlugin(t *testing.T) {
	cache, bin := record(t, "cat > $0.in; echo $CNI_COMMAND >> $0.log\n")
	all, err := List(cache)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if got := string(all[0].Config("first")); !strings.Contains(got, `"bridge":"cni0"`) || all[0].Config("third") != nil {
		t.Errorf("the first plugin was told %s, the third %s", got, all[0].Config("third"))
	}
	if err := all[0].Check(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Redo(t.Context(), bin, "second"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"first.log": "CHECK K8S_POD_NAMESPACE=default;K8S_POD_NAME=web\n", "second.log": "CHECK\nADD\n",
		"first.in":  `{"bridge":"cni0","cniVersion":"1.0.0","name":"l3edge","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.10.10.2/24"}]},"type":"first"}`,
		"second.in": `{"cniVersion":"1.0.0","name":"l3edge","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.10.10.2/24"}]},"runtimeConfig":{"portMappings":[{"hostPort":80}]},"type":"second"}`,
	} {
		if got, err := os.ReadFile(filepath.Join(bin, file)); err != nil || string(got) != want {
			t.Errorf("%s: %s %v\nwant %s", file, got, err, want)
		}
	}
}

func TestAFailureHasItsPlugin(t *testing.T) {
	cache, bin := record(t, `echo '{"code":101,"msg":"port veth1: is gone"}'; exit 1`)
	all, err := List(cache)
	if err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if err := all[0].Check(t.Context(), bin); !errors.As(err, &f) || f.Error() != "second: port veth1: is gone" {
		t.Errorf("got %v", err)
	}
	if err := all[0].Check(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "plugin first: not found") {
		t.Errorf("without plugins: %v", err)
	}
}

func TestAnUnreadableRecordDoesNotHideTheOthers(t *testing.T) {
	cache, _ := record(t, "")
	if err := os.WriteFile(filepath.Join(cache, "broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := List(cache)
	if len(all) != 1 || err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %d, %v", len(all), err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"
)

func sample() *Result {
	two, table := 2, 100
	return &Result{
		Interfaces: []Interface{
			{Name: "cni0", MAC: "0a:58:0a:0a:0a:01", MTU: 1500},
			{Name: "veth1", MAC: "0a:59:0a:0a:0a:02", MTU: 1500},
			{Name: "eth0", MAC: "0a:58:0a:0a:0a:02", MTU: 1500, Sandbox: "/run/netns/x"},
		},
		IPs: []IP{
			{Address: netip.MustParsePrefix("10.10.10.2/24"), Gateway: netip.MustParseAddr("10.10.10.1"), Interface: &two},
			{Address: netip.MustParsePrefix("fd00:10::2/64"), Interface: &two},
		},
		Routes: []Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: netip.MustParseAddr("10.10.10.1")},
			{Dst: netip.MustParsePrefix("10.0.0.0/8"), MTU: 1400, Table: &table},
		},
		DNS: DNS{Nameservers: []string{"10.96.0.10"}},
	}
}

func TestTheReferenceLibraryReadsEveryVersion(t *testing.T) {
	for _, version := range versions {
		text := sample().Encode(version)
		theirs, err := create.Create(version, text)
		if err != nil {
			t.Errorf("%s: %v\n%s", version, err, text)
			continue
		}
		var b bytes.Buffer
		if err := theirs.PrintTo(&b); err != nil {
			t.Fatal(err)
		}
		var ours, back any
		if err := errors.Join(json.Unmarshal(text, &ours), json.Unmarshal(b.Bytes(), &back)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(back, ours); diff != "" {
			t.Errorf("%s: result does not survive their library (-theirs +ours):\n%s", version, diff)
		}
		again, err := ParseResult(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(again.Encode(version)); got != string(text)+"\n" {
			t.Errorf("%s: a parsed result is not printed verbatim:\n%s", version, got)
		}
		again.Raw = nil
		if got := string(again.Encode(version)); got != string(text) {
			t.Errorf("%s: parse and encode lose something:\n%s\n%s", version, got, text)
		}
	}
}

func TestErrorCodesAreTheReferenceLibrarys(t *testing.T) {
	want := map[Code]uint{
		CodeIncompatibleVersion: types.ErrIncompatibleCNIVersion, CodeUnsupportedField: types.ErrUnsupportedField,
		CodeUnknownContainer: types.ErrUnknownContainer, CodeInvalidEnvironment: types.ErrInvalidEnvironmentVariables,
		CodeIO: types.ErrIOFailure, CodeDecode: types.ErrDecodingFailure, CodeInvalidConfig: types.ErrInvalidNetworkConfig,
		CodeInvalidNetns: types.ErrInvalidNetNS, CodeTryAgainLater: types.ErrTryAgainLater, CodeInternal: types.ErrInternal,
		CodeNotAvailable: types.ErrPluginNotAvailable, CodeLimitedConnectivity: types.ErrLimitedConnectivity,
	}
	for ours, theirs := range want {
		if uint(ours) != theirs {
			t.Errorf("code %d, theirs is %d", ours, theirs)
		}
	}
}

// plugin runs verbs on a call and returns the exit code and stdout.
func plugin(env map[string]string, stdin string, v Verbs) (int, string) {
	var out, errOut bytes.Buffer
	code := run("test", v, func(k string) string { return env[k] }, strings.NewReader(stdin), &out, &errOut)
	return code, out.String() + errOut.String()
}

func env(command string, more ...string) map[string]string {
	e := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "pod1", "CNI_NETNS": "/proc/self/ns/net", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
	for i := 0; i < len(more); i += 2 {
		e[more[i]] = more[i+1]
	}
	return e
}

func TestCallsAreRefusedWithTheRightCode(t *testing.T) {
	const ok = `{"cniVersion":"1.1.0","name":"net","type":"x"}`
	rows := []struct {
		name  string
		env   map[string]string
		stdin string
		code  Code
		text  string
	}{
		{"an unknown command", env("JUMP"), ok, CodeInvalidEnvironment, `"JUMP"`},
		{"no container id", env("ADD", "CNI_CONTAINERID", ""), ok, CodeInvalidEnvironment, "CNI_CONTAINERID"},
		{"a container id with a slash", env("DEL", "CNI_CONTAINERID", "../x"), ok, CodeInvalidEnvironment, `"../x"`},
		{"an interface name that is too long", env("DEL", "CNI_IFNAME", "abcdefghijklmnop"), ok, CodeInvalidEnvironment, "CNI_IFNAME"},
		{"all mistakes at once", env("ADD", "CNI_IFNAME", "a b", "CNI_NETNS", ""), ok, CodeInvalidEnvironment, "CNI_NETNS"},
		{"CNI_ARGS that are no pairs", env("ADD", "CNI_ARGS", "a=b;c"), ok, CodeInvalidEnvironment, `"c"`},
		{"an interface name that the kernel would fill in", env("ADD", "CNI_IFNAME", "eth%d"), ok, CodeInvalidEnvironment, "CNI_IFNAME"},
		{"GC that says nothing of what to keep", env("GC"), ok, CodeInvalidConfig, "cni.dev/valid-attachments: missing"},
		{"GC that says it in no list", env("GC"), `{"cniVersion":"1.1.0","name":"net","cni.dev/attachments":7}`, CodeInvalidConfig, "cni.dev/attachments: "},
		{"broken JSON", env("ADD"), `{"cniVersion":`, CodeDecode, "parse network configuration"},
		{"no version, which means 0.1.0", env("ADD"), `{"name":"net"}`, CodeIncompatibleVersion, "0.1.0"},
		{"a version from the future", env("ADD"), `{"cniVersion":"2.0.0","name":"net"}`, CodeIncompatibleVersion, "2.0.0"},
		{"a network name that leaves its directory", env("ADD"), `{"cniVersion":"1.0.0","name":"../net"}`, CodeInvalidConfig, `"../net"`},
		{"CHECK before there was CHECK", env("CHECK"), `{"cniVersion":"0.3.1","name":"net"}`, CodeIncompatibleVersion, "CHECK"},
		{"GC before there was GC", env("GC"), `{"cniVersion":"1.0.0","name":"net"}`, CodeIncompatibleVersion, "GC"},
		{"a broken prevResult", env("ADD"), `{"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"9"}}`, CodeInvalidConfig, "prevResult"},
		{"a verb that fails with a code", env("DEL"), ok, CodeNoAddress, "pool: taken"},
		{"a verb that fails without one", env("GC"), `{"cniVersion":"1.1.0","name":"net","cni.dev/valid-attachments":[]}`, CodeInternal, "boom"},
		{"DEL whose CNI_ARGS are no pairs, as any other", env("DEL", "CNI_ARGS", "a=b;c"), ok, CodeNoAddress, "pool: taken"},
	}
	verbs := Verbs{
		Add: func(*Call) (*Result, error) { return nil, nil },
		Del: func(*Call) error {
			return fmt.Errorf("pool: %w", Errorf(CodeNoAddress, "taken"))
		},
		GC: func(*Call) error { return errors.New("boom") },
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			exit, out := plugin(row.env, row.stdin, verbs)
			var e types.Error
			if err := json.Unmarshal([]byte(out), &e); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if exit == 0 || Code(e.Code) != row.code || !strings.Contains(e.Msg, row.text) {
				t.Errorf("exit %d, %s; want code %d with %q", exit, out, row.code, row.text)
			}
		})
	}
}

func TestWhatRuntimesReallySend(t *testing.T) {
	type mapping struct {
		HostPort int    `json:"hostPort"`
		Protocol string `json:"protocol"`
	}
	for name, config := range map[string]string{
		"containerd": `"runtimeConfig":{"portMappings":[{"HostPort":8180,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]}`,
		"podman":     `"runtimeConfig":{"portMappings":[{"hostPort":8180,"containerPort":80,"protocol":"tcp"}]}`,
		"nobody yet": `"RuntimeConfig":{"PORTMAPPINGS":[{"hostport":8180,"protocol":"tcp"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := env("DEL", "CNI_NETNS", "", "CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web;ip=10.0.0.9")
			exit, out := plugin(e, `{"cniVersion":"1.0.0","name":"net",`+config+`}`, Verbs{Del: func(c *Call) error {
				var got []mapping
				if ok, err := c.Runtime("portMappings", &got); !ok || err != nil {
					t.Errorf("port mappings: %t, %v", ok, err)
				}
				if diff := cmp.Diff([]mapping{{8180, "tcp"}}, got); diff != "" {
					t.Errorf("port mappings (-want +got):\n%s", diff)
				}
				if v, _ := c.EnvArg("IP"); v != "10.0.0.9" {
					t.Errorf("IP is %q", v)
				}
				if ok, err := c.CNIArg("mac", new(string)); ok || err != nil {
					t.Errorf("mac: %t, %v", ok, err)
				}
				return nil
			}})
			if exit != 0 || out != "" {
				t.Errorf("exit %d, said %q", exit, out)
			}
		})
	}
}

// TestMistakesOfAllKeysAtOnce: those in the keys of the specification and those in the plugin's own, in plain words. DEL
// and GC go on where they can, because what has been made must be removable whatever the configuration says today.
// TestWhatGCKeeps: libcni sends two keys since 1.3, each null where nothing must be kept.
func TestWhatGCKeeps(t *testing.T) {
	for keys, want := range map[string]string{
		`"cni.dev/valid-attachments":null,"cni.dev/attachments":null`: "[]",
		`"cni.dev/valid-attachments":[]`:                              "[]",
		`"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]`: "[{a eth0}]",
		`"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/attachments":[{"containerID":"b","ifname":"net1"}]`: "[{a eth0} {b net1}]",
	} {
		got := ""
		exit, out := plugin(env("GC"), `{"cniVersion":"1.1.0","name":"net",`+keys+`}`, Verbs{GC: func(c *Call) error { got = fmt.Sprint(c.Net.Valid); return nil }})
		if exit != 0 || got != want {
			t.Errorf("%s: %d %s, kept %s, want %s", keys, exit, out, got, want)
		}
	}
}

func TestMistakesOfAllKeysAtOnce(t *testing.T) {
	const config = `{"cniVersion":"1.1.0","name":"net","type":5,"dns":[],"runtimeConfig":"x","prevResult":{"cniVersion":"9"}`
	done := 0
	verbs := Verbs{
		Add: func(*Call) (*Result, error) { done++; return nil, nil }, Check: func(*Call) error { done++; return nil },
		Status: func(*Call) error { done++; return nil }, GC: func(*Call) error { return nil },
		Del:      func(*Call) error { return nil },
		Problems: func(*Call) error { return errors.New("mtu: \"1500\" is not a number") },
	}
	for _, command := range []string{"ADD", "CHECK", "STATUS"} {
		_, out := plugin(env(command), config+"}", verbs)
		var e types.Error
		if err := json.Unmarshal([]byte(out), &e); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(e.Msg, "\n")
		want := []string{"type: 5 is not a text", "dns: ", "runtimeConfig: \"x\" is not an object", "prevResult: ", "mtu: \"1500\" is not a number"}
		if e.Code != uint(CodeInvalidConfig) || len(lines) != len(want) {
			t.Fatalf("%s: code %d, %q", command, e.Code, lines)
		}
		for i := range want {
			if !strings.HasPrefix(lines[i], want[i]) {
				t.Errorf("%s: line %d is %q, want %q", command, i, lines[i], want[i])
			}
		}
	}
	if done != 0 {
		t.Errorf("%d verbs ran in spite of the mistakes", done)
	}
	for _, command := range []string{"DEL", "GC"} {
		if exit, out := plugin(env(command), config+`,"cni.dev/valid-attachments":null}`, verbs); exit != 0 {
			t.Errorf("%s: %s", command, out)
		}
	}
	for _, command := range []string{"DEL", "GC"} { // without these it would take the wrong things for garbage
		for _, vital := range []string{`"cni.dev/valid-attachments":{}`, `"name":7`} {
			if exit, out := plugin(env(command), strings.Replace(config, `"name":"net"`, vital, 1)+"}", verbs); exit == 0 {
				t.Errorf("%s with %s: went on: %s", command, vital, out)
			}
		}
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# x\nnameserver 10.0.0.53\nnameserver\n nameserver fd00::53\ndomain a.test\nsearch a.test b.test\noptions ndots:5 rotate\nsortlist x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadResolvConf(path)
	if err != nil {
		t.Fatal(err)
	}
	want := DNS{Nameservers: []string{"10.0.0.53", "fd00::53"}, Domain: "a.test", Search: []string{"a.test", "b.test"}, Options: []string{"ndots:5", "rotate"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ReadResolvConf(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestAddPrintsInTheAskedVersion(t *testing.T) {
	exit, out := plugin(env("ADD"), `{"cniVersion":"0.4.0","name":"net"}`, Verbs{Add: func(*Call) (*Result, error) { return sample(), nil }})
	if exit != 0 || !strings.Contains(out, `"cniVersion":"0.4.0"`) || strings.Contains(out, `"mtu"`) {
		t.Errorf("exit %d: %s", exit, out)
	}
}

// broken is the standard output of a plugin whose runtime is gone.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestAddIsUndoneWhenItsRuntimeIsGone: it was killed, came back, and has asked for the DEL already.
func TestAddIsUndoneWhenItsRuntimeIsGone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		stdout  io.Writer
		during  func(path string) error // what happens to the namespace during the ADD
		undone  bool
		message string
	}{
		{"a runtime that lives", nil, nil, false, ""},
		{"nobody takes the result", broken{}, nil, true, ""},
		{"the namespace is gone", nil, os.Remove, true, "went away during the ADD"},
		{"another namespace has its name", nil, func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
		}, true, "went away during the ADD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			netns := filepath.Join(t.TempDir(), "netns")
			if err := os.WriteFile(netns, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			undone := false
			verbs := Verbs{
				Add: func(*Call) (*Result, error) {
					if tt.during != nil {
						return sample(), tt.during(netns)
					}
					return sample(), nil
				},
				Del: func(*Call) error { undone = true; return nil },
			}
			var out bytes.Buffer
			stdout := tt.stdout
			if stdout == nil {
				stdout = &out
			}
			e := env("ADD", "CNI_NETNS", netns)
			code := run("test", verbs, func(k string) string { return e[k] }, strings.NewReader(`{"cniVersion":"1.0.0","name":"net"}`), stdout, io.Discard)
			if undone != tt.undone || (code != 0) != tt.undone || !strings.Contains(out.String(), tt.message) {
				t.Errorf("exit %d, undone: %v, %s", code, undone, &out)
			}
		})
	}
	exit, out := plugin(env("ADD", "CNI_NETNS", "/nowhere"), `{"cniVersion":"1.0.0","name":"net"}`, Verbs{})
	if exit != 1 || !strings.Contains(out, `"code":3`) {
		t.Errorf("a namespace that is gone before: exit %d: %s", exit, out)
	}
}

func TestVersionNeedsNothing(t *testing.T) {
	exit, out := plugin(map[string]string{"CNI_COMMAND": "VERSION"}, "", Verbs{})
	if exit != 0 || !strings.Contains(out, `"supportedVersions":["0.3.0"`) {
		t.Errorf("exit %d: %s", exit, out)
	}
	if exit, out = plugin(nil, "", Verbs{}); exit != 1 || !strings.Contains(out, "a CNI plugin") {
		t.Errorf("without a command: exit %d: %s", exit, out)
	}
}

func FuzzParseCall(f *testing.F) {
	f.Add("ADD", "a=b;IgnoreUnknown=1", `{"cniVersion":"1.0.0","name":"net","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24","interface":0}],"interfaces":[{"name":"x"}]}}`)
	f.Add("GC", "", `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"x","ifname":"eth0"}]}`)
	f.Fuzz(func(t *testing.T, command, args, stdin string) {
		e := env(command, "CNI_ARGS", args)
		c, err := parseCall(func(k string) string { return e[k] }, []byte(stdin))
		if err != nil {
			asError(err).encode(c.Net.CNIVersion)
			return
		}
		if c.Net.PrevResult != nil {
			for _, v := range versions {
				c.Net.PrevResult.Encode(v)
			}
		}
	})
}

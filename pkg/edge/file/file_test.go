// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l3edge/l3edge/pkg/core/service"
)

const webfrontend = `# the article's service
apiVersion: v1
kind: Service
metadata:
  name: webfrontend
spec:
  clusterIP: 10.100.87.105
  ports:
  - port: 80
    targetPort: 8080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: webfrontend-1
  labels:
    kubernetes.io/service-name: webfrontend
addressType: IPv4
ports:
- port: 8080
endpoints:
- addresses: [10.10.10.2]
  nodeName: kubminion1
- addresses: [10.10.20.2]
  conditions: {ready: false}
`

var web = service.Name{Namespace: "default", Name: "webfrontend"}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", webfrontend)
	write(t, dir, "ro.json", `{"apiVersion":"v1","kind":"List","items":[
	  {"apiVersion":"v1","kind":"Service","metadata":{"name":"kubernetes-ro"},"spec":{"clusterIP":"10.100.0.1","ports":[{"port":80}]}},
	  {"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"kubernetes-ro"},"subsets":[{"addresses":[{"ip":"10.20.30.61"}],"ports":[{"port":7080}]}]}]}`)
	write(t, dir, "README.txt", "not a manifest")
	write(t, dir, ".hidden.yaml", "nonsense: [")
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	ro := service.Name{Namespace: "default", Name: "kubernetes-ro"}
	want := service.Snapshot{
		Services: map[service.Name]service.Service{
			web: {Name: web, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.87.105")}, Ports: []service.Port{{Protocol: service.TCP, Port: 80}}},
			ro:  {Name: ro, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.1")}, Ports: []service.Port{{Protocol: service.TCP, Port: 80}}},
		},
		Endpoints: map[service.PortName][]service.Endpoint{
			{Name: web}: {
				{Addr: netip.MustParseAddrPort("10.10.10.2:8080"), Ready: true, Serving: true, Node: "kubminion1"},
				{Addr: netip.MustParseAddrPort("10.10.20.2:8080")},
			},
			{Name: ro}: {{Addr: netip.MustParseAddrPort("10.20.30.61:7080"), Ready: true, Serving: true}},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Each row is a file that is wrong; the problem must name the line and say what a person needs to mend it.
func TestProblems(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"a tab where YAML wants spaces", "apiVersion: v1\nkind: Service\nmetadata:\n\tname: x\n", "web.yaml:4: found character that cannot start any token"},
		{"a misspelt key", strings.Replace(webfrontend, "targetPort", "targetport_", 1), "web.yaml:10: Service/default/webfrontend: targetport_: unknown key"},
		{"a word where a number belongs", strings.Replace(webfrontend, "port: 80\n", "port: http\n", 1), "web.yaml:9: Service/default/webfrontend: spec.ports.port: a string where int32 belongs"},
		{"a port out of range", strings.Replace(webfrontend, "port: 80\n", "port: 70000\n", 1), "web.yaml:9: Service/default/webfrontend: spec.ports[0].port: 70000 is not a port"},
		{"a VIP that is no address", strings.Replace(webfrontend, "10.100.87.105", "10.100.87.305", 1), `web.yaml:7: Service/default/webfrontend: spec.clusterIP: "10.100.87.305" is not an address`},
		{"an endpoint in the second document", strings.Replace(webfrontend, "10.10.20.2", "127.0.0.1", 1), "web.yaml:24: EndpointSlice/default/webfrontend-1: endpoints[1].addresses[0]: 127.0.0.1 cannot be an endpoint"},
		{"an unknown kind", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", "web.yaml:2: v1 Pod is not a kind that a portal knows; skipped"},
		{"a misspelt policy", strings.Replace(webfrontend, "  ports:\n  - port: 80\n", "  externalTrafficPolicy: local\n  ports:\n  - port: 80\n", 1), `web.yaml:8: Service/default/webfrontend: spec.externalTrafficPolicy: "local" is not Cluster or Local`},
		{"a misspelt wish", strings.Replace(webfrontend, "  ports:\n  - port: 80\n", "  trafficDistribution: PreferSameZones\n  ports:\n  - port: 80\n", 1), `web.yaml:8: Service/default/webfrontend: spec.trafficDistribution: "PreferSameZones" is not PreferSameZone, PreferSameNode or PreferClose; traffic goes anywhere`},
		{"a second JSON object that is wrong", jsonService("web", 1) + "\n" + strings.Replace(jsonService("other", 2), "80", "70000", 1) + "\n", "web.yaml:6: Service/default/other: spec.ports[0].port: 70000 is not a port"},
		{"garbage behind a JSON object", jsonService("web", 1) + "\nand more\n", "web.yaml:4: what follows the object is none: invalid character 'a' looking for beginning of value"},
		{"a JSON object that does not end", jsonService("web", 1) + "\n{\"apiVersion\":", "web.yaml:4: what follows the object is none: unexpected EOF"},
		{"a JSON key twice", strings.Replace(jsonService("web", 1), `"clusterIP"`, "\"ports\":[],\n\"clusterIP\":\"10.100.0.9\",\n\"\\u0063lusterIP\"", 1), `web.yaml:5: key "clusterIP" is there twice in one object`},
		{"two YAML documents in braces", "{apiVersion: v1, kind: Pod}\n{apiVersion: v1, kind: Pod}\n", "web.yaml:2: what follows the end of the document is not read: begin it with a line \"---\""},
		{"a document behind the end of one", webfrontend + "...\napiVersion: v1\nkind: Service\nmetadata: {name: lost}\n", "web.yaml:27: what follows the end of the document is not read: begin it with a line \"---\""},
		{"no kind", "foo: bar\n", "web.yaml:1: apiVersion and kind are missing"},
		{"the same service twice", webfrontend + "---\n" + webfrontend, "web.yaml:30: Service/default/webfrontend is also at line 4; that one counts"},
		{"a slice of no service", strings.Replace(webfrontend, "kubernetes.io/service-name", "app", 1), "web.yaml:14: EndpointSlice/default/webfrontend-1: no label kubernetes.io/service-name, so it belongs to no Service"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "web.yaml", row.text)
			_, err := Load(dir)
			if err == nil {
				t.Fatal("no problem reported")
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			if d := cmp.Diff(filepath.Join(dir, row.want), first); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// jsonService is a Service in JSON, in three lines.
func jsonService(name string, vip int) string {
	return fmt.Sprintf("{\"apiVersion\":\"v1\",\"kind\":\"Service\",\n\"metadata\":{\"name\":%q},\n\"spec\":{\"clusterIP\":\"10.100.0.%d\",\"ports\":[{\"port\":80}]}}", name, vip)
}

// kubectl get -o json, twice into one file.
func TestSeveralJSONObjects(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.json", jsonService("a", 1)+"\n"+jsonService("b", 2)+jsonService("c", 3)+"\n---\n"+jsonService("d", 4))
	s, err := Load(dir)
	if err != nil || len(s.Services) != 4 {
		t.Errorf("%d services, %v", len(s.Services), err)
	}
	write(t, dir, "a.json", jsonService("a", 1)+"\n\n"+jsonService("a", 2))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "a.json:6: Service/default/a is also at line 2") {
		t.Errorf("one twice: %v", err)
	}
}

func TestDirectives(t *testing.T) {
	dir := t.TempDir()
	for i, head := range []string{"%YAML 1.1\n---\n", "# made by a tool\n%YAML 1.2\n%TAG ! tag:example.org,2000:\n--- # begins\n"} {
		write(t, dir, "web.yaml", head+at(fmt.Sprint("10.100.0.", i+1)))
		s, err := Load(dir)
		if err != nil || len(s.Services) != 1 || s.Services[web].ClusterIPs[0].String() != fmt.Sprint("10.100.0.", i+1) {
			t.Errorf("%q: %v %v", head, s.Services, err)
		}
	}
	write(t, dir, "web.yaml", "%YAML 1.1\n---\nkind: [\n")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "web.yaml:3:") && !strings.Contains(err.Error(), "web.yaml:4:") {
		t.Errorf("lines count on: %v", err)
	}
}

func TestTheRestOfABrokenFileCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {clusterIP: nonsense}\n---\n"+webfrontend)
	write(t, dir, "b.yaml", webfrontend)
	s, err := Load(dir)
	if _, ok := s.Services[web]; !ok || len(s.Endpoints) != 1 {
		t.Errorf("the good service is not there: %v", s)
	}
	for _, want := range []string{"a.yaml:4: ", "b.yaml:4: Service/default/webfrontend is also in " + filepath.Join(dir, "a.yaml") + ":9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that does not exist is no error")
	}
}

// watching runs Watch and gives the test a way to wait for what it expects to see.
type watching struct {
	t      *testing.T
	events chan string
	stop   func()
}

func watch(t *testing.T, dir string) *watching { t.Helper(); return watchRemembering(t, dir, "") }

func watchRemembering(t *testing.T, dir, remember string) *watching {
	t.Helper()
	w := &watching{t: t, events: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		all := service.Delta{}
		done <- Watch(ctx, dir, remember, func(d service.Delta, err error) {
			all.Merge(d)
			s := all.Snapshot()
			seen := "nothing"
			if svc, ok := s.Services[web]; ok {
				seen = fmt.Sprint(svc.ClusterIPs, len(s.Services))
			}
			if err != nil {
				seen += " " + strings.ReplaceAll(err.Error(), dir, "")
			}
			w.events <- seen
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// until waits for an event that contains want and returns it.
func (w *watching) until(want string) string {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	last := "no event"
	for {
		select {
		case last = <-w.events:
			if strings.Contains(last, want) {
				return last
			}
		case <-deadline:
			w.t.Fatalf("waited for %q, last saw %q", want, last)
		}
	}
}

func at(ip string) string { return strings.Replace(webfrontend, "10.100.87.105", ip, 1) }

func TestWatch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "services")
	w := watch(t, dir)
	w.until("nothing") // the directory is not there yet
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := write(t, dir, "web.yaml", webfrontend)
	w.until("[10.100.87.105] 1")

	write(t, dir, "web.yaml", at("10.100.0.7"))
	w.until("[10.100.0.7] 1")

	tmp := write(t, dir, "4913", at("10.100.0.8")) // as editors save: write beside, rename over
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	w.until("[10.100.0.8] 1")

	write(t, dir, "web.yaml", at("nonsense"))
	w.until(`[10.100.0.8] 1 /web.yaml:7: Service/default/webfrontend: spec.clusterIP: "nonsense" is not an address`)
	write(t, dir, "web.yaml", at("10.100.0.9"))
	w.until("[10.100.0.9] 1")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.until("nothing")
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	w.until("nothing")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", webfrontend)
	w.until("[10.100.87.105] 1")
}

// A directory that is away takes nothing from the network; files that are removed do.
func TestWatchKeepsWhatAMissingDirectoryHeld(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "services")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", webfrontend)
	w := watch(t, dir)
	w.until("[10.100.87.105] 1")
	if err := os.Rename(dir, filepath.Join(top, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	w.until("[10.100.87.105] 1 read manifests, keeping what they said last: ")
	if err := os.Rename(filepath.Join(top, "elsewhere"), dir); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", at("10.100.0.5"))
	w.until("[10.100.0.5] 1")
	if err := os.RemoveAll(dir); err != nil { // file by file
		t.Fatal(err)
	}
	w.until("nothing")
}

// A new process knows what the one before it knew to be good, and no more than that.
func TestWatchRemembersOverARestart(t *testing.T) {
	top := t.TempDir()
	dir, memory := filepath.Join(top, "services"), filepath.Join(top, "memory")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", webfrontend)
	path := filepath.Join(dir, "web.yaml")
	restart := func(change func() error, want string) {
		t.Helper()
		w := watchRemembering(t, dir, memory)
		w.until("[10.100.87.105] 1")
		w.stop()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		w = watchRemembering(t, dir, memory)
		w.until(want)
		w.stop()
	}
	mend := func() {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "web.yaml", webfrontend)
	}
	restart(func() error { return os.WriteFile(path, []byte("kind: [Service"), 0o600) }, "[10.100.87.105] 1 /web.yaml:1: ")
	mend()
	restart(func() error { return os.RemoveAll(dir) }, "[10.100.87.105] 1 read manifests, keeping")
	mend()
	restart(func() error { return os.Remove(path) }, "nothing") // a wish, not a mishap
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w := watchRemembering(t, dir, memory)
	w.until("nothing") // what was removed is not remembered
	w.stop()
	mend()
	other := filepath.Join(top, "others")
	restart(func() error { dir = other; return nil }, "nothing") // what another directory held is not this one's
}

// A memory that cannot be written is a problem until it can; the manifests are in force all the same.
func TestWatchSaysThatItCannotRemember(t *testing.T) {
	dir, memory := t.TempDir(), filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(memory, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", webfrontend)
	w := watchRemembering(t, dir, memory)
	w.until("[10.100.87.105] 1 remember manifests: ")
	if err := os.Remove(memory); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yaml", at("10.100.0.7"))
	if last := w.until("[10.100.0.7] 1"); strings.Contains(last, "remember") {
		t.Errorf("the problem outlived its cause: %s", last)
	}
}

// Kubernetes mounts a ConfigMap as links through ..data, which it swaps by rename.
func TestWatchSwappedLinks(t *testing.T) {
	dir := t.TempDir()
	version := func(n, ip string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, n), "web.yaml", at(ip))
		if err := os.Symlink(n, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "10.100.0.1")
	if err := os.Symlink("..data/web.yaml", filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	w := watch(t, dir)
	w.until("[10.100.0.1] 1")
	version("..2", "10.100.0.2")
	w.until("[10.100.0.2] 1")
}

// The whole directory may be a link that a deployment tool turns.
func TestWatchSwappedDirectory(t *testing.T) {
	top := t.TempDir()
	turn := func(n, ip string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(top, n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(top, n), "web.yaml", at(ip))
		if err := os.Symlink(n, filepath.Join(top, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(top, "new"), filepath.Join(top, "current")); err != nil {
			t.Fatal(err)
		}
	}
	turn("v1", "10.100.0.1")
	w := watch(t, filepath.Join(top, "current"))
	w.until("[10.100.0.1] 1")
	turn("v2", "10.100.0.2")
	w.until("[10.100.0.2] 1")
	write(t, filepath.Join(top, "v2"), "web.yaml", at("10.100.0.3"))
	w.until("[10.100.0.3] 1")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(webfrontend))
	f.Add([]byte(`{"apiVersion":"v1","kind":"ServiceList","items":[{"metadata":{"name":"a"},"spec":{"ports":[{"port":1}]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range parse(data, nil) {
			for _, p := range append(d.broken, d.notes...) {
				if p.What == "" || p.Line < 1 {
					t.Errorf("problem without a place or a word: %q", p)
				}
			}
		}
	})
}

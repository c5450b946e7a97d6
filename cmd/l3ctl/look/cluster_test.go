// SPDX-License-Identifier: Apache-2.0

package look

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeKubectl puts a kubectl in front of PATH.
func fakeKubectl(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Every node answers once, and one that does not is named with the reason.
func TestClusterIsEveryNode(t *testing.T) {
	fakeKubectl(t, `case "$*" in
"get pods --all-namespaces --selector=app.kubernetes.io/name=l3edge --output=json") cat <<'J'
{"items":[
{"metadata":{"name":"p3","namespace":"net"},"spec":{"nodeName":"n3"},"status":{"phase":"Pending"}},
{"metadata":{"name":"p0","namespace":"net"},"spec":{},"status":{"phase":"Pending"}},
{"metadata":{"name":"old","namespace":"net"},"spec":{"nodeName":"n1"},"status":{"phase":"Failed"}},
{"metadata":{"name":"p1","namespace":"net"},"spec":{"nodeName":"n1"},"status":{"phase":"Running"}},
{"metadata":{"name":"p2","namespace":"net"},"spec":{"nodeName":"n2"},"status":{"phase":"Running"}}]}
J
;;
"exec --namespace=net p1 --container=routed -- l3ctl observe") echo '{"name":"whoever","version":"1.2","links":[],"routes":[]}';;
*) echo "error: unable to upgrade connection: pod does not exist" >&2; exit 1;;
esac
`)
	hs, err := cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range hs {
		got = append(got, h.Name+"|"+h.Version+"|"+h.Lost)
	}
	want := "n1|1.2|\nn2||kubectl exec: error: unable to upgrade connection: pod does not exist\nn3||pod net/p3 is Pending"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestNoCluster(t *testing.T) {
	for script, want := range map[string]string{
		`echo '{"items":[]}'`: "--all: no pod is labelled app.kubernetes.io/name=l3edge",
		`echo "E1124 memcache.go" >&2; echo "The connection to the server localhost:8080 was refused" >&2; exit 1`: "--all: kubectl get: The connection to the server localhost:8080 was refused",
		"echo x": "--all: read kubectl's answer",
	} {
		fakeKubectl(t, script)
		if _, err := cluster(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
	}
}

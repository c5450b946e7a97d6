// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestManifestAsksForLittle: what conf/kubernetes installs runs with no more rights than its parts need. What the parts do
// with it is tested on a real cluster, in test/kube.
func TestManifestAsksForLittle(t *testing.T) {
	files, err := filepath.Glob("../../conf/kubernetes/base" + "/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	found := 0
	for _, file := range append(files, "../../conf/kubernetes/l3edge.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			var o struct {
				Kind string
				Spec struct {
					Template struct {
						Spec struct {
							HostPID, HostIPC           bool
							InitContainers, Containers []container
						}
					}
				}
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			pod := o.Spec.Template.Spec
			if pod.HostPID || pod.HostIPC {
				t.Errorf("%s: the pods share more of the host than its network", file)
			}
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				found++
				c.check(t, file)
			}
		}
	}
	if found != 6 {
		t.Errorf("%d containers, want three in the base and three in l3edge.yaml", found)
	}
}

type container struct {
	Name            string
	SecurityContext struct {
		Privileged, ReadOnlyRootFilesystem bool
		AllowPrivilegeEscalation           *bool
		Capabilities                       struct{ Add, Drop []string }
	}
}

func (c container) check(t *testing.T, file string) {
	t.Helper()
	s := c.SecurityContext
	if s.Privileged || !s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || strings.Join(s.Capabilities.Drop, "") != "ALL" {
		t.Errorf("%s: container %s is not confined: %+v", file, c.Name, s)
	}
	for _, one := range s.Capabilities.Add {
		if !strings.HasPrefix(one, "NET_") {
			t.Errorf("%s: container %s asks for %s", file, c.Name, one)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mustUseEveryRight compares what the account has asked of the API server with what it may ask: it needs no more, and
// nothing is granted that nobody uses. (A server that has just started refuses what it grants as soon as it has read it.)
func (c *control) mustUseEveryRight(t *testing.T) {
	t.Helper()
	role, err := c.admin.RbacV1().ClusterRoles().Get(t.Context(), "l3edge", meta.GetOptions{})
	must(t, err)
	granted := map[string]bool{}
	for _, r := range role.Rules {
		for _, g := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					granted[verb+" "+strings.TrimSuffix(resource+"."+g, ".")] = true
				}
			}
		}
	}
	asked := c.asked(t)
	for what := range asked {
		if !granted[what] {
			t.Errorf("asked for, and not granted: %s", what)
		}
	}
	for what := range granted {
		// A server that streams lists (since 1.34) is asked for a watch instead; an older one is asked for a list.
		if verb, rest, _ := strings.Cut(what, " "); !asked[what] && !(verb == "list" && asked["watch "+rest]) {
			t.Errorf("granted, and never asked for: %s", what)
		}
	}
	t.Logf("asked: %v", slices.Sorted(maps.Keys(asked)))
}

// asked is what the account has asked for, by the server's audit log, as "verb resource[.group]".
func (c *control) asked(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open(c.first.audit())
	must(t, err)
	defer f.Close() //nolint:errcheck // read only
	out := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Verb       string
			ObjectRef  *struct{ Resource, Subresource, APIGroup string }
			RequestURI string
		}
		must(t, json.Unmarshal(lines.Bytes(), &e))
		if e.ObjectRef == nil {
			out[e.Verb+" "+e.RequestURI] = true
			continue
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		out[strings.TrimSuffix(fmt.Sprint(e.Verb, " ", resource, ".", e.ObjectRef.APIGroup), ".")] = true
	}
	must(t, lines.Err())
	return out
}

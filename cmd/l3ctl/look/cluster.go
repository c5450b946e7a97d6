// SPDX-License-Identifier: Apache-2.0

package look

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/l3edge/l3edge/pkg/core/view"
)

const (
	selector = "app.kubernetes.io/name=l3edge" // our pods, as conf/kubernetes labels them
	speaker  = "routed"                        // the container of them that has l3ctl, and all of a node that a container can see
	atOnce   = 16                              // nodes that are asked at the same time
	answer   = 15 * time.Second                // how long a node may take
)

// member is our pod on one node.
type member struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

// cluster has l3ctl look at every node of the Kubernetes cluster, by kubectl exec into our pod on it: who may do that may see
// all that it shows. A node that does not answer is one of the answers.
func cluster(ctx context.Context) ([]view.Host, error) {
	text, err := kubectl(ctx, "get", "pods", "--all-namespaces", "--selector="+selector, "--output=json")
	if err != nil {
		return nil, fmt.Errorf("--all: %w", err)
	}
	var list struct {
		Items []member `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("--all: read kubectl's answer: %w", err)
	}
	var mu sync.Mutex
	byNode := map[string]view.Host{}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, m := range list.Items {
		if m.Spec.NodeName == "" {
			continue // not placed yet
		}
		g.Go(func() error {
			h := m.look(ctx)
			mu.Lock()
			defer mu.Unlock()
			if old, ok := byNode[h.Name]; !ok || old.Lost != "" { // of a pod that ends and the next one, the one that answers
				byNode[h.Name] = h
			}
			return nil
		})
	}
	_ = g.Wait() // each node's failure is in its view
	if len(byNode) == 0 {
		return nil, fmt.Errorf("--all: no pod is labelled %s: is l3edge installed in this cluster?", selector)
	}
	out := make([]view.Host, 0, len(byNode))
	for _, h := range byNode {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b view.Host) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// look asks one node.
func (m member) look(ctx context.Context) view.Host {
	h := view.Host{Name: m.Spec.NodeName, Seen: time.Now().Round(time.Millisecond)}
	if m.Status.Phase != "Running" {
		h.Lost = fmt.Sprintf("pod %s/%s is %s", m.Metadata.Namespace, m.Metadata.Name, m.Status.Phase)
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	text, err := kubectl(ctx, "exec", "--namespace="+m.Metadata.Namespace, m.Metadata.Name, "--container="+speaker, "--", "l3ctl", "observe")
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return view.Host{Name: m.Spec.NodeName, Seen: h.Seen, Lost: err.Error()}
	}
	h.Name = m.Spec.NodeName
	return h
}

// kubectl runs the program as the caller is set up for it.
func kubectl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	said := strings.TrimSpace(stderr.String())
	if said = said[strings.LastIndex(said, "\n")+1:]; err != nil && said != "" { // what stands before is its log
		err = errors.New(said)
	}
	if err != nil {
		return nil, fmt.Errorf("kubectl %s: %w", args[0], err)
	}
	return out, nil
}

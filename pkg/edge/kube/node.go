// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// Node tells emit what the cluster knows of the node of that name, now and whenever it changes, until ctx ends. The error
// joins what is wrong with the object; what is right in it counts. A node that is deleted stays as it was: its pods live.
// trouble is as for Services.
func (c *Client) Node(ctx context.Context, name string, emit func(kubeobj.Member, error), trouble func(error)) error {
	news := make(signal, 1)
	var mu sync.Mutex
	var here *v1.Node
	h := &health{tell: trouble, failed: map[string]bool{}}
	follow(ctx, c, kind[*v1.Node]{
		resource: "nodes", from: c.core, empty: &v1.Node{}, drop: func(string) {},
		put: func(_ string, o *v1.Node) {
			mu.Lock()
			defer mu.Unlock()
			here = o
		},
		options: func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
		},
	}, news.raise, h.of("nodes"))
	var last kubeobj.Member
	var said string
	for first := true; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		mu.Lock()
		o := here
		mu.Unlock()
		if o == nil {
			continue
		}
		m, err := kubeobj.Node(o)
		if now := fmt.Sprint(err); first || !m.Equal(last) || now != said {
			first, last, said = false, m, now
			emit(m, err)
		}
	}
}

// ServiceNets tells emit the prefixes that the cluster takes addresses of Services from, now and whenever they change.
// A server that knows no ServiceCIDRs (before 1.33) is trouble; emit is not called then.
func (c *Client) ServiceNets(ctx context.Context, emit func([]netip.Prefix), trouble func(error)) error {
	news := make(signal, 1)
	var mu sync.Mutex
	nets := map[string][]netip.Prefix{}
	h := &health{tell: trouble, failed: map[string]bool{}}
	m := follow(ctx, c, kind[*networking.ServiceCIDR]{
		resource: "servicecidrs", from: c.networking, empty: &networking.ServiceCIDR{}, options: func(*metav1.ListOptions) {},
		put: func(key string, o *networking.ServiceCIDR) {
			mu.Lock()
			defer mu.Unlock()
			nets[key] = nil
			for _, s := range o.Spec.CIDRs {
				if p, err := subnet.Parse(s); err == nil { // the API server has seen to it
					nets[key] = append(nets[key], p)
				}
			}
		},
		drop: func(key string) {
			mu.Lock()
			defer mu.Unlock()
			delete(nets, key)
		},
	}, news.raise, h.of("servicecidrs"))
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		if !m.Synced() {
			continue
		}
		mu.Lock()
		all := slices.Concat(slices.Collect(maps.Values(nets))...)
		mu.Unlock()
		slices.SortFunc(all, netip.Prefix.Compare)
		if now := fmt.Sprint(all); now != said {
			said = now
			emit(all)
		}
	}
}

// Condition is what a node's status says of one thing (v1.NodeCondition).
type Condition struct {
	Type, Reason, Message string
	True                  bool
}

// SetConditions states conditions in the node's status; others stay as they are.
func (c *Client) SetConditions(ctx context.Context, node string, list ...Condition) error {
	now := metav1.Now()
	var conds []v1.NodeCondition
	for _, x := range list {
		status := v1.ConditionFalse
		if x.True {
			status = v1.ConditionTrue
		}
		conds = append(conds, v1.NodeCondition{
			Type: v1.NodeConditionType(x.Type), Status: status, Reason: x.Reason, Message: x.Message, LastHeartbeatTime: now, LastTransitionTime: now,
		})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conds}})
	if err != nil {
		return err
	}
	if err := c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(node).SubResource("status").Body(patch).Do(ctx).Error(); err != nil {
		return fmt.Errorf("kubernetes: set conditions of node %s: %w", node, err)
	}
	return nil
}

// Object names what an Event is about.
type Object struct{ Kind, Namespace, Name string }

// Event tells the cluster's operators that something happened to an object. Warning marks what they should look at.
func (c *Client) Event(ctx context.Context, node string, about Object, warning bool, reason, message string) error {
	now := metav1.Now()
	ns, ref := about.Namespace, v1.ObjectReference{Kind: about.Kind, APIVersion: "v1", Namespace: about.Namespace, Name: about.Name}
	if about.Kind == "Node" { // as the kubelet writes them
		ref.UID = types.UID(about.Name)
	}
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	sort := v1.EventTypeNormal
	if warning {
		sort = v1.EventTypeWarning
	}
	e := &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s.%x", about.Name, time.Now().UnixNano())},
		InvolvedObject: ref, Reason: reason, Message: message, Type: sort, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: v1.EventSource{Component: "l3edge", Host: node}, ReportingController: "l3edge.dev", ReportingInstance: node,
	}
	if err := c.core.Post().Namespace(ns).Resource("events").Body(e).Do(ctx).Error(); err != nil {
		return fmt.Errorf("kubernetes: report %s of %s %s: %w", reason, about.Kind, about.Name, err)
	}
	return nil
}

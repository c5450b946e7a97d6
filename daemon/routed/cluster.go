// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/kube"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

const (
	// patience is how long an API server may take before a restarted routed goes on with what it said to an earlier one.
	patience = 3 * time.Second
	// courtesy is the time in which others turn away from a node that service addresses leave.
	courtesy = 10 * time.Second
	// settle is the time in which sessions that come and go become one message to the cluster.
	settle = time.Second
)

// cluster returns the tasks that keep up with the API server; none without one.
func (d *wiring) cluster(cfg config) ([]task.Task, error) {
	if cfg.api == nil {
		d.known.Do(func() { close(d.isKnown) })
		return nil, nil
	}
	api, err := kube.Open(*cfg.api)
	if err != nil {
		return nil, err
	}
	return []task.Task{
		{Name: "node object", Run: func(ctx context.Context) error {
			return api.Node(ctx, cfg.node, func(m kubeobj.Member, err error) { d.heardOf(ctx, m, err) }, d.serverTrouble)
		}},
		{Name: "node status", Run: func(ctx context.Context) error { return d.reportTo(ctx, api) }},
	}, nil
}

// serverTrouble tells that the API server cannot be read, or can again.
func (d *wiring) serverTrouble(err error) {
	if err == nil {
		d.log.Info("the API server answers again")
		return
	}
	d.log.Warn("cannot read from the API server, keeping what it said", "problem", err)
	d.state.stillStarting("the API server does not answer: " + err.Error())
}

// heardOf takes in what the cluster says of this node now.
func (d *wiring) heardOf(ctx context.Context, m kubeobj.Member, err error) {
	if err != nil {
		d.log.Warn("the node's object has mistakes", "problem", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	d.flags.member.Store(&m)
	d.remember(m)
	d.reload()
	d.want(ctx, m)
}

// memberFile keeps what the cluster said last, so that a restart does without the API server. It lies on tmpfs.
func (d *wiring) memberFile() string {
	return filepath.Join(filepath.Dir(d.conf.Load().socket), "member.json")
}

func (d *wiring) remember(m kubeobj.Member) {
	if err := keep(d.memberFile(), m); err != nil {
		d.log.Warn("cannot keep what the cluster said for a restart", "problem", err)
	}
}

// keep writes what an outside party said to a file, whole or not at all.
func keep(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (d *wiring) recallMember() (m kubeobj.Member, ok bool) {
	text, err := os.ReadFile(d.memberFile())
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("cannot read what the cluster said before", "problem", err)
		}
		return kubeobj.Member{}, false
	}
	return m, m.Name == d.conf.Load().node
}

// awaitMember returns when it is known who this node is, at once where no cluster is asked. False: ctx ended first.
func (d *wiring) awaitMember(ctx context.Context) bool {
	slow := time.NewTimer(patience)
	defer slow.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-d.isKnown:
			return true
		case <-slow.C:
			d.state.stillStarting("the API server has not said yet who this node is")
			if m, ok := d.recallMember(); ok && d.flags.member.CompareAndSwap(nil, &m) {
				d.log.Warn("the API server does not answer, going on with what it said last", "podSubnets", m.PodSubnets)
				d.reload()
				d.want(ctx, m)
			}
		}
	}
}

// want takes service addresses off the node, or lets them come back, as the cluster wants. What an operator asked for with
// routed drain holds beside it.
func (d *wiring) want(ctx context.Context, m kubeobj.Member) {
	away := m.Unwanted != "" && (!m.Cordoned || d.conf.Load().onCordon)
	turn, changed := d.vips.wish(away)
	switch {
	case !changed:
	case !away:
		d.drained("service addresses may come back")
	default:
		d.drained("service addresses leave", "reason", m.Unwanted)
		time.AfterFunc(courtesy, func() {
			if ctx.Err() == nil && d.vips.gone(turn) {
				d.drained("service addresses withdrawn", "reason", m.Unwanted)
			}
		})
	}
}

// wish notes whether the cluster wants service addresses away, and reports whether that is news.
func (v *vips) wish(away bool) (turn int, changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if away == (v.cluster != route.Serving) {
		return v.wishes, false
	}
	v.wishes++
	v.cluster = route.Serving
	if away {
		v.cluster = route.Leaving
	}
	return v.wishes, true
}

// gone ends Leaving, unless the cluster wants something else by now.
func (v *vips) gone(turn int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wishes != turn {
		return false
	}
	v.cluster = route.Departed
	return true
}

// Conditions of a node. The kubelet or a cloud's controller sets NetworkUnavailable where somebody else is to see to routes;
// nobody puts pods on the node until it is cleared.
const (
	conditionNetwork = "NetworkUnavailable"
	conditionBGP     = "l3edge.dev/BGP"
)

// reportTo keeps the node's status true: the pod subnet is announced, and how its sessions stand. Each session that is lost
// or comes is an event, too.
func (d *wiring) reportTo(ctx context.Context, api *kube.Client) error {
	var up []string // peers as last reported
	reported, announced := false, false
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-d.clusterNews:
		case <-after(wait):
		}
		if !sleep(ctx, settle) {
			return nil
		}
		sessions, all := d.established(ctx)
		if !all || reported && slices.Equal(sessions, up) {
			wait = 0
			continue
		}
		c := kube.Condition{Type: conditionBGP, True: len(sessions) > 0, Reason: "SessionsEstablished", Message: "sessions with " + strings.Join(sessions, ", ")}
		if len(sessions) == 0 {
			c.Reason, c.Message = "NoSession", "no session is established"
		}
		list := []kube.Condition{c}
		if announced = announced || len(sessions) > 0; announced {
			list = append(list, kube.Condition{Type: conditionNetwork, Reason: "PodSubnetAnnounced", Message: "routed announces " + fmt.Sprint(d.conf.Load().podSubnets)})
		}
		err := errors.Join(append(d.events(ctx, api, up, sessions, reported), api.SetConditions(ctx, d.conf.Load().node, list...))...)
		if err != nil {
			if wait == 0 && ctx.Err() == nil {
				d.log.Warn("cannot report to the cluster, trying again", "problem", err)
			}
			wait = min(max(2*wait, settle), time.Minute)
			continue
		}
		up, reported, wait = sessions, true, 0
	}
}

// events tells of sessions that were lost, and of those that came later than the first report.
func (d *wiring) events(ctx context.Context, api *kube.Client, was, is []string, reported bool) (errs []error) {
	node := d.conf.Load().node
	about := kube.Object{Kind: "Node", Name: node}
	for _, peer := range was {
		if !slices.Contains(is, peer) {
			errs = append(errs, api.Event(ctx, node, about, true, "BGPSessionLost", "session with "+peer+" is gone"))
		}
	}
	for _, peer := range is {
		if reported && !slices.Contains(was, peer) {
			errs = append(errs, api.Event(ctx, node, about, false, "BGPSessionEstablished", "session with "+peer+" stands"))
		}
	}
	return errs
}

// established names the peers whose sessions stand, sorted; false: the speaker does not run yet.
func (d *wiring) established(ctx context.Context) ([]string, bool) {
	speaker := d.state.speaking()
	if speaker == nil {
		return nil, false
	}
	list, err := speaker.Sessions(ctx)
	if err != nil {
		return nil, false
	}
	var up []string
	for _, s := range list {
		if s.State == bgp.Established {
			up = append(up, fmt.Sprintf("%s (AS %d)", s.Peer, s.ASN))
		}
	}
	slices.Sort(up)
	return up, true
}

// after is a channel that fires after a while; 0: never.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

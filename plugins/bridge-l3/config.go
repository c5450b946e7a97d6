// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"time"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// parse reads the network and what the runtime asks for of this pod. Every mistake is reported at once.
func parse(c *cni.Call) (podnet.Config, ask, error) {
	var ipRanges rawjson.Value
	_, err := c.Runtime("ipRanges", &ipRanges)
	conf, cerr := podnet.Parse(c.Keys, ipRanges)
	a, aerr := requested(c)
	if err := errors.Join(err, cerr, aerr); err != nil {
		return podnet.Config{}, ask{}, cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	return conf, a, nil
}

func problems(c *cni.Call) error {
	_, _, err := parse(c)
	return err
}

// patience is how long an ADD waits for a node file that names the node's subnets: after a boot the runtime makes pods
// while routed starts, and whoever is refused then is asked for again ten seconds later (kubelet) or never.
var patience = 10 * time.Second

// errUnknownSubnet means that nobody has said yet which subnets are this node's.
var errUnknownSubnet = errors.New("this node's pod subnet is not known: the configuration has no subnet")

// await is complete for an ADD. A configuration that has its subnet never waits.
func await(conf *podnet.Config) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := complete(conf)
		if !errors.Is(err, errUnknownSubnet) || time.Now().After(end) {
			return err
		}
	}
}

// complete takes the subnets from the node file when the configuration has none.
func complete(conf *podnet.Config) error {
	if !conf.WantsSubnets() {
		return nil
	}
	n, err := nodefile.Read(conf.NodeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return cni.Errorf(cni.CodeNotAvailable, "%w, and %s is not there (is routed running?)", errUnknownSubnet, conf.NodeFile)
	}
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	if err := conf.UseSubnets(n.PodSubnets); err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%s: %w", conf.NodeFile, err)
	}
	if conf.WantsSubnets() {
		return cni.Errorf(cni.CodeNotAvailable, "%w, and %s names none", errUnknownSubnet, conf.NodeFile)
	}
	return nil
}

// spec is what one attachment is decided from.
func spec(c *cni.Call, conf podnet.Config, mtu int, addrs []attach.Addr, mac *attach.MAC) attach.Spec {
	return conf.Attach(attach.Spec{Network: c.Net.Name, ContainerID: c.ContainerID, IfName: c.IfName, MTU: mtu, MAC: mac, Addrs: addrs})
}

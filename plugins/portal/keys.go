// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/rawjson"
	"github.com/l3edge/l3edge/pkg/edge/cni"
)

// rawConfig is the plugin's configuration as written: one key of ours, and portmap's; docs/reference/portal.md explains
// every key, and a test compares.
type rawConfig struct {
	PortaldSocket                     string
	SNAT, MasqAll                     *bool
	Backend                           string
	ConditionsV4, ConditionsV6        []string
	MarkMasqBit, ExternalSetMarkChain rawjson.Value
}

func (r *rawConfig) fields() []rawjson.Field {
	return []rawjson.Field{
		{Key: "portaldSocket", Into: &r.PortaldSocket}, {Key: "snat", Into: &r.SNAT}, {Key: "masqAll", Into: &r.MasqAll}, {Key: "backend", Into: &r.Backend},
		{Key: "conditionsV4", Into: &r.ConditionsV4}, {Key: "conditionsV6", Into: &r.ConditionsV6},
		{Key: "markMasqBit", Into: &r.MarkMasqBit}, {Key: "externalSetMarkChain", Into: &r.ExternalSetMarkChain},
	}
}

// parse reads the configuration. What portmap does and we do not is refused, lest a port be open to more than was meant.
func parse(c *cni.Call) (rawConfig, error) {
	var r rawConfig
	fields := r.fields()
	errs := []error{c.Keys.Read("", fields), c.Keys.Unknown("", fields, podnet.IsOthers)}
	refuse := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(r.SNAT != nil && !*r.SNAT, "snat: a pod that reaches itself, and a client on 127.0.0.1, get another source, because no answer would come back; remove the key")
	refuse(r.MasqAll != nil && *r.MasqAll, "masqAll: pods see the true client; remove the key, and let the answers come back by this node")
	for _, v := range []struct {
		key  string
		list []string
	}{{"conditionsV4", r.ConditionsV4}, {"conditionsV6", r.ConditionsV6}} {
		refuse(len(v.list) > 0, "%s: portal does not limit who reaches a port, and would open it to all; remove the key, and limit it by hostIP or by a rule of your own", v.key)
	}
	refuse(!r.MarkMasqBit.IsNull(), "markMasqBit: portal marks no packets; remove the key")
	refuse(!r.ExternalSetMarkChain.IsNull(), "externalSetMarkChain: portal marks no packets; remove the key")
	refuse(r.Backend != "" && r.Backend != "nftables", "backend: %q is not to be had: ports are elements of an nftables map; remove the key", r.Backend)
	if err := errors.Join(errs...); err != nil {
		return rawConfig{}, cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	return r, nil
}

func problems(c *cni.Call) error {
	_, err := parse(c)
	return err
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// nftables is the kernel's data plane.
type nftables struct{}

var errNotYet = errors.New("nftables mode is not there yet: use --mode=userspace")

func (nftables) Apply(context.Context, portal.Table, map[service.Name]tuning.Settings) error {
	return errNotYet
}

// Plan is the whole table, in the language of nft.
func (nftables) Plan(portal.Table) (string, error) { return "", errNotYet }

func (nftables) Cleanup(context.Context) error { return nil }

func (nftables) Forget() error { return nil }

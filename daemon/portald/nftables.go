// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// nftables is the kernel data plane.
type nftables struct{}

func newNFTables(*slog.Logger) *nftables { return &nftables{} }

var errNotYet = errors.New("nftables mode is not there yet: use --mode=userspace")

func (nftables) Apply(context.Context, portal.Table, map[service.Name]tuning.Settings) error {
	return errNotYet
}
func (nftables) Plan(portal.Table) (string, error) { return "", errNotYet }
func (nftables) Cleanup(context.Context) error     { return nil }

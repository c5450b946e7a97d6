// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// cniSubnets finds the subnets of the first bridge-l3 entry that has one, in the order in which a runtime reads dir.
func cniSubnets(dir string) ([]netip.Prefix, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil {
		return nil, err
	}
	for _, path := range files { // Glob sorts
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
		found, err := conflistSubnets(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// conflistSubnets reads both ways to write it: "subnet", and host-local's "ipam".
func conflistSubnets(data []byte) ([]netip.Prefix, error) {
	var list struct {
		Plugins []struct {
			Type   string `json:"type"`
			Subnet string `json:"subnet"`
			IPAM   struct {
				Subnet string `json:"subnet"`
				Ranges [][]struct {
					Subnet string `json:"subnet"`
				} `json:"ranges"`
			} `json:"ipam"`
		} `json:"plugins"`
	}
	if err := yaml.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	var errs []error
	for i, pl := range list.Plugins {
		if pl.Type != "bridge-l3" || len(out) > 0 {
			continue
		}
		all := []string{pl.Subnet, pl.IPAM.Subnet}
		for _, set := range pl.IPAM.Ranges {
			for _, r := range set {
				all = append(all, r.Subnet)
			}
		}
		for _, s := range all {
			if s == "" {
				continue
			}
			x, err := subnet.Parse(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("plugins[%d]: %w", i, err))
			} else {
				out = append(out, x)
			}
		}
	}
	return out, errors.Join(errs...)
}

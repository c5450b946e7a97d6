// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// recordDir holds a file for each attachment with hostPorts. It is written before the kernel is asked, so that a DEL
// finds what an ADD that was killed half way may have left, without a look at anybody else's ports.
var recordDir = mark.RunDir + "/hostports"

func recordPath(network string, a cni.Attachment) string {
	return filepath.Join(recordDir, network, a.ContainerID+":"+a.IfName)
}

// holder names an attachment in the kernel and to people. A name that is too long is cut and told apart by a hash.
func holder(network string, a cni.Attachment) string {
	s := network + "/" + a.ContainerID + "/" + a.IfName
	if len(s) <= nft.MaxHolder {
		return s
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return fmt.Sprintf("%s~%016x", s[:nft.MaxHolder-17], h.Sum64())
}

// readRecord returns nil without an error when there is none.
func readRecord(path string) ([]nft.Mapping, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host port record: %w", err)
	}
	var ms []nft.Mapping
	if err := json.Unmarshal(data, &ms); err != nil {
		return nil, fmt.Errorf("read host port record %s: %w", path, err)
	}
	return ms, nil
}

func writeRecord(path string, ms []nft.Mapping) error {
	data, err := json.Marshal(ms)
	if err != nil {
		panic("portal: encoding plain values: " + err.Error())
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write host port record: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d", os.Getpid()))
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write host port record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write host port record: %w", err), os.Remove(tmp))
	}
	return nil
}

func removeRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove host port record: %w", err)
	}
	return nil
}

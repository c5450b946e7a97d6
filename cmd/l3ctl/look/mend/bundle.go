// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/diagnose"
	"github.com/l3edge/l3edge/pkg/core/mark"
)

// commands are what a bundle holds of the system, each as the file of its name; one that is missing says so in its file.
var commands = map[string]string{
	"uname": "uname -a", "links": "ip -details link", "addresses": "ip addr", "routes": "ip route show table all", "nexthops": "ip nexthop", "rules": "ip rule",
	"nft-services": "nft list table ip " + mark.TableServices, "nft-hostports": "nft list table ip " + mark.TableHostPorts, "nft-pods": "nft list table bridge " + mark.TablePods,
	"iptables": "iptables-save -t nat", "sockets": "ss -ltnup", "journal": "journalctl --no-pager -n 2000 -u routed -u portald", "kernel-log": "dmesg",
	"routed": "routed status", "portald": "portald status",
}

// files are those that a bundle holds, by pattern.
var files = []string{mark.CNIConfDir + "/*", "/etc/l3edge/*.yaml", "/etc/l3edge/*.json", mark.NodeFile}

func newBundle() *cobra.Command {
	path := ""
	cmd := &cobra.Command{
		Use: "bundle", Short: "Write all that a bug report needs into one tar.gz, without secrets", Args: cobra.NoArgs,
		Example: "  l3ctl bundle --file=/tmp/node7.tar.gz",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				path = "l3edge-" + time.Now().Format("20060102-150405") + ".tar.gz"
			}
			if err := writeBundle(cmd.Context(), path); err != nil {
				return fmt.Errorf("write bundle: %w", err)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	cmd.Flags().StringVar(&path, "file", "", "`file` to write (default: l3edge-TIME.tar.gz here)")
	return cmd
}

func writeBundle(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	defer func() { err = errors.Join(err, t.Close(), z.Close(), f.Close()) }()
	h, found := examine(ctx)
	for name, v := range map[string]any{"observe.json": h, "doctor.json": found} {
		text, err := json.MarshalIndent(v, "", "  ")
		if err == nil {
			err = put(t, name, string(text)+"\n")
		}
		if err != nil {
			return err
		}
	}
	for name, command := range commands {
		if err := put(t, "commands/"+name+".txt", report(ctx, command)); err != nil {
			return err
		}
	}
	for _, pattern := range files {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				text = []byte(err.Error())
			}
			if err := put(t, "files"+name, string(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// report runs a command and returns what it says, or why it says nothing.
func report(ctx context.Context, command string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	args := strings.Fields(command)
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	text := "$ " + command + "\n" + string(out)
	if err != nil {
		text += err.Error() + "\n"
	}
	return text
}

// put adds a file without its secrets.
func put(t *tar.Writer, name, text string) error {
	text = diagnose.Redact(text)
	if err := t.WriteHeader(&tar.Header{Name: "l3edge/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := io.WriteString(t, text)
	return err
}

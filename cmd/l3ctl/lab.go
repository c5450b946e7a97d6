// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/nest"
)

// registryName is the directory that remembers the labs left running in the background.
const registryName = "l3edge-lab"

func newLab(inner *nest.Inner) *cobra.Command {
	name := "lab"
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run the article's lab in network namespaces: a switch, four nodes that are routers, a client outside",
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(name) {
				return fmt.Errorf("--name: %q is not a name of letters a-z, digits and dashes", name)
			}
			return nil
		},
	}
	cmd.PersistentFlags().StringVar(&name, "name", name, "which lab, where several run at once")
	cmd.AddCommand(newUp(&name, inner), newDemo(&name, inner), newRun(inner), newDown(&name), newExec(&name), newShell(&name), newStatus())
	cmd.AddCommand(newHelpers()...)
	return cmd
}

func newDown(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End a lab that runs in the background", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reg, err := nest.OpenRegistry(registryName)
			if err != nil {
				return err
			}
			if err := reg.End(*name); errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(cmd.OutOrStdout(), "no lab called %s is up\n", *name)
			} else if err != nil {
				return err
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s is down\n", *name)
			}
			return nil
		},
	}
}

func newStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "List the labs that run in the background, and their hosts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reg, err := nest.OpenRegistry(registryName)
			if err != nil {
				return err
			}
			records, err := reg.All()
			if err != nil {
				return err
			}
			if len(records) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "no lab is up: l3ctl lab up starts one")
			}
			for _, r := range records {
				if err := printLab(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func printLab(w io.Writer, r nest.Record) error {
	s, err := lab.ReadState(fmt.Sprintf("/proc/%d/root", r.Pid))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "lab %s, up since %s, switch: %s\n", r.Name, r.Started.Format("2006-01-02 15:04:05"), s.MLS)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, h := range s.Hosts {
		pods := h.Pods
		if pods != "" {
			pods = "pods " + pods
		}
		fmt.Fprintln(t, strings.TrimRight(fmt.Sprintf("  %s\t%s\t%s", h.Name, h.Addr, pods), "\t"))
	}
	return t.Flush()
}

func newExec(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "exec HOST[/POD] -- COMMAND [ARG...]", Short: "Run a command on a host of a lab, or in the network of a pod on it",
		Example: "  l3ctl lab exec kubminion1 -- ip route\n  l3ctl lab exec kubminion1/web8080-1 -- curl -s 10.100.87.105",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return enter(*name, args[0], args[1:])
		},
	}
}

func newShell(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "shell [HOST[/POD]]", Short: "Open a shell on a host of a lab, or where ip netns sees them all",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			host := ""
			if len(args) == 1 {
				host = args[0]
			}
			shell := []string{"sh"}
			if _, err := exec.LookPath("bash"); err == nil {
				shell = []string{"bash", "--norc"}
			}
			if err := os.Setenv("PS1", `[\u@\h \W]# `); err != nil { // as the article's
				return err
			}
			return enter(*name, host, shell)
		},
	}
}

// enter replaces l3ctl by nsenter and the command: util-linux's nsenter hands the terminal on and waits as a shell expects.
// From the machine it takes two steps: into the nest, and, by l3ctl there, into the host.
func enter(name, host string, command []string) error {
	if state, err := lab.ReadState(""); err == nil { // inside already
		return enterHost(state, host, command)
	}
	reg, err := nest.OpenRegistry(registryName)
	if err != nil {
		return err
	}
	rec, alive, err := reg.Get(name)
	if err != nil || !alive {
		return fmt.Errorf("no lab called %s is up: l3ctl lab up starts one", name)
	}
	args := []string{"--target", fmt.Sprint(rec.Pid), "--mount", "--net", "--uts", "--ipc", "--pid"}
	if rec.User {
		args = append(args, "--user", "--preserve-credentials")
	}
	args = append(args, "--", lab.Program("l3ctl"), "lab", "exec")
	if host == "" {
		host = "."
	}
	return nsenter(append(append(args, host, "--"), command...))
}

// enterHost enters a host from inside the nest; "." is the nest itself.
func enterHost(s lab.State, target string, command []string) error {
	if err := os.Setenv("PATH", lab.Path); err != nil {
		return err
	}
	if target == "." || target == "" {
		path, err := exec.LookPath(command[0])
		if err != nil {
			return err
		}
		return unix.Exec(path, command, os.Environ())
	}
	host, pod, inPod := strings.Cut(target, "/")
	var names []string
	for _, h := range s.Hosts {
		if h.Name != host {
			names = append(names, h.Name)
			continue
		}
		args := []string{"--target", fmt.Sprint(h.Pid), "--mount", "--uts"}
		if inPod {
			args = append(args, fmt.Sprintf("--net=/proc/%d/root/run/netns/cni-%s", h.Pid, pod))
		} else {
			args = append(args, "--net")
		}
		return nsenter(append(append(args, "--"), command...))
	}
	return fmt.Errorf("no host called %s: the lab has %s", host, strings.Join(names, ", "))
}

func nsenter(args []string) error {
	path, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("%w: apt install util-linux", err)
	}
	return unix.Exec(path, append([]string{"nsenter"}, args...), os.Environ())
}

// ownBin is the directory that l3ctl lies in, and with it the other programs.
func ownBin() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	exe, err = filepath.EvalSymlinks(exe)
	return filepath.Dir(exe), err
}

// silence gives up the terminal: what stays in the background must not hold a pipe that somebody waits on.
func silence() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // duplicated
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

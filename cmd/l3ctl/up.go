// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/nest"
)

func newUp(name *string, inner *nest.Inner) *cobra.Command {
	mls, visible := string(lab.Embedded), false
	cmd := &cobra.Command{
		Use: "up", Short: "Start a lab in the background, with four pods and a service", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if inner != nil {
				return serveLab(cmd.Context(), inner, lab.Kind(mls))
			}
			if visible && nest.NeedsUserNamespace() {
				return errors.New("--visible: only root can put namespaces into the machine's /run/netns")
			}
			bg := background{name: *name, visible: visible}
			if err := bg.run(); err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), howToEnter(*name))
			return nil
		},
	}
	cmd.Flags().StringVar(&mls, "mls", mls, "the multilayer switch: embedded (our own routed), frr or bird")
	look.Choose(cmd, "mls", "embedded", "frr", "bird")
	cmd.Flags().BoolVar(&visible, "visible", false, "also show the hosts to the machine's own ip netns (root only)")
	return cmd
}

// serveLab is lab up inside the nest: it builds everything, says so, and stays until it is told to end.
func serveLab(ctx context.Context, inner *nest.Inner, kind lab.Kind) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	bin, err := ownBin()
	if err != nil {
		return err
	}
	l, err := lab.Up(lab.Config{Bin: bin, MLS: kind})
	if err != nil {
		return err
	}
	if err := l.StartEverything(); err != nil {
		return err
	}
	return stay(ctx, inner)
}

// stay tells the outer process that all is well and waits for the end.
func stay(ctx context.Context, inner *nest.Inner) error {
	if err := silence(); err != nil {
		return err
	}
	if ready := inner.Ready; ready != nil {
		if _, err := ready.WriteString("ready\n"); err != nil {
			return err
		}
		if err := ready.Close(); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// background is a lab that outlives the l3ctl that starts it.
type background struct {
	name    string
	visible bool
	tell    bool // its output comes to this terminal until it is ready; otherwise into a log
}

// run starts the lab and returns when it is ready.
func (b background) run() error {
	reg, err := nest.OpenRegistry(registryName)
	if err != nil {
		return err
	}
	if _, alive, err := reg.Get(b.name); err == nil && alive {
		return fmt.Errorf("lab %[1]s is up already: l3ctl lab shell enters it, l3ctl lab down --name=%[1]s ends it", b.name)
	} else if err == nil {
		if err := reg.End(b.name); err != nil { // what a crash left
			return err
		}
	}
	out := os.Stdout
	if !b.tell {
		if out, err = os.OpenFile(reg.Path(b.name, ".log"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); err != nil {
			return err
		}
		defer out.Close() //nolint:errcheck // written by others
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read to its end
	cmd, err := nest.Nest{Args: os.Args, Stdout: out, Stderr: out, Ready: w, Detached: true}.Start()
	_ = w.Close()
	if err != nil {
		return err
	}
	rec := nest.Record{Name: b.name, Pid: cmd.Process.Pid, User: nest.NeedsUserNamespace(), Started: time.Now()}
	if err := reg.Add(rec); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	ready := awaitReady(r)
	if ready && b.visible {
		err = show(reg, rec)
	}
	if ready && err == nil {
		return nil
	}
	return b.failed(reg, out, err)
}

// awaitReady waits for the word of the inner process, its death, or ^C.
func awaitReady(r *os.File) bool {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	said := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(r).ReadString('\n')
		said <- line == "ready\n"
	}()
	select {
	case ok := <-said:
		return ok
	case <-ctx.Done():
		return false
	}
}

// failed ends what was started and returns what the inner process had to say.
func (b background) failed(reg nest.Registry, out *os.File, cause error) error {
	said := ""
	if !b.tell {
		if text, err := os.ReadFile(out.Name()); err == nil {
			said = strings.TrimPrefix(strings.TrimSpace(string(text)), "l3ctl: ")
		}
	}
	if err := reg.End(b.name); err != nil {
		cause = errors.Join(cause, err)
	}
	if cause != nil {
		return cause
	}
	if said == "" {
		return exitCode(1)
	}
	return errors.New(said)
}

// show binds the hosts' network namespaces into the machine's /run/netns and records that.
func show(reg nest.Registry, rec nest.Record) error {
	root := fmt.Sprintf("/proc/%d/root", rec.Pid)
	state, err := lab.ReadState(root)
	if err != nil {
		return err
	}
	for _, h := range state.Hosts {
		rec.Visible = append(rec.Visible, filepath.Join("/run/netns", h.Name))
	}
	for _, path := range rec.Visible {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("--visible: %s exists already", path)
		}
	}
	if err := reg.Add(rec); err != nil { // first, so that down finds them whatever happens
		return err
	}
	for _, path := range rec.Visible {
		h, err := netns.Open(root + path)
		if err != nil {
			return err
		}
		if err := errors.Join(h.Mount(path), h.Close()); err != nil {
			return err
		}
	}
	return nil
}

// howToEnter tells what to type next, with l3ctl called as it was called.
func howToEnter(name string) string {
	self := os.Args[0] + " lab"
	if name != "lab" {
		self += " --name=" + name
	}
	return strings.ReplaceAll(`The lab is up. Try:
  LAB status
  LAB shell kubminion1           # a node: ip route; routed status; portald status
  LAB exec kubminion1/web8080-1 -- curl -s 10.100.87.105   # a pod asks the service
  LAB exec mls -- ip route       # what the switch learned by BGP
  LAB shell                      # beside all hosts: ip netns exec outside curl -s 10.10.10.2:8080
  LAB down
`, "LAB", self)
}

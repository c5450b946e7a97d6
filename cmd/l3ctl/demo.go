// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/nest"
	"github.com/l3edge/l3edge/pkg/lab/story"
)

func newDemo(name *string, inner *nest.Inner) *cobra.Command {
	mls, keep := string(lab.Embedded), false
	cmd := &cobra.Command{
		Use: "demo", Short: "Tell the article's story in a lab, checking every claim", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if inner != nil {
				return tell(cmd, inner, lab.Kind(mls), keep)
			}
			if keep {
				if err := (background{name: *name, tell: true}).run(); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "\n%s", howToEnter(*name))
				return nil
			}
			code, err := nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
			if err == nil && code != 0 {
				err = exitCode(code)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&mls, "mls", mls, "the multilayer switch: embedded (our own routed), frr or bird")
	look.Choose(cmd, "mls", "embedded", "frr", "bird")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the lab up in the background")
	return cmd
}

// newRun is lab run: a scenario in a lab of its own.
func newRun(inner *nest.Inner) *cobra.Command {
	long, names := "Run a scripted scenario in a lab of its own, checking every claim:\n", []string{}
	for _, s := range story.Scenarios() {
		long += fmt.Sprintf("\n  %-18s %s", s[0], s[1])
		names = append(names, s[0])
	}
	return &cobra.Command{
		Use: "run SCENARIO", Short: "Run a scripted scenario in a lab of its own, checking every claim", Long: long,
		Example: "  l3ctl lab run drain", Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			if inner == nil {
				code, err := nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
				if err == nil && code != 0 {
					err = exitCode(code)
				}
				return err
			}
			dieOnSignal()
			bin, err := ownBin()
			if err != nil {
				return err
			}
			l, err := lab.Up(lab.Config{Bin: bin, MLS: lab.Embedded})
			if err != nil {
				return err
			}
			return story.Run(l, args[0], story.Options{Out: os.Stdout, Color: wantsColor()})
		},
	}
}

// dieOnSignal ends the process wherever the story is: the nest takes everything down.
func dieOnSignal() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(130)
	}()
}

// tell is lab demo inside the nest.
func tell(cmd *cobra.Command, inner *nest.Inner, kind lab.Kind, keep bool) error {
	dieOnSignal()
	bin, err := ownBin()
	if err != nil {
		return err
	}
	l, err := lab.Up(lab.Config{Bin: bin, MLS: kind})
	if err != nil {
		return err
	}
	if err := story.Tell(l, story.Options{Out: os.Stdout, Color: wantsColor()}); err != nil {
		return err
	}
	if keep {
		return stay(cmd.Context(), inner)
	}
	fmt.Print(strings.ReplaceAll(`
To look around yourself:
  make demo KEEP=1        this lab, left up afterwards
  LAB up                  a lab in the background; it says how to enter
  LAB up --mls=frr        the same with FRR as the switch
`, "LAB", os.Args[0]+" lab"))
	return nil
}

// wantsColor follows the terminal and NO_COLOR (no-color.org).
func wantsColor() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

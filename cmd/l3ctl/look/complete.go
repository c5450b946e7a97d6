// SPDX-License-Identifier: Apache-2.0

package look

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// Complete offers the shell what this host has for a command's arguments, of which there are at most so many.
func Complete(most int, words func(view.Host) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		out := words(Host(cmd.Context()))
		slices.Sort(out)
		return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
	}
}

// Choose offers the words that a flag may have.
func Choose(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: ours is the mistake
	}
}

// Pods are the names of living pods.
func Pods(h view.Host) (out []string) {
	for _, p := range h.Pods {
		if p.Alive {
			out = append(out, p.Short())
		}
	}
	return out
}

// Ends are what a connection may begin or end at: pods, services, this host.
func Ends(h view.Host) []string {
	out := append(Pods(h), "here")
	for _, p := range h.Portald.Portals {
		out = append(out, p.Name())
	}
	return out
}

// Addresses are those of pods, services and this host.
func Addresses(h view.Host) (out []string) {
	for _, p := range h.Pods {
		for _, a := range p.Addrs {
			out = append(out, a.String())
		}
	}
	for _, p := range h.Portald.Portals {
		out = append(out, p.VIP.String())
	}
	for _, l := range h.Links {
		for _, a := range l.Addrs {
			out = append(out, a.Addr().String())
		}
	}
	return out
}

// Leased are the addresses that are held.
func Leased(h view.Host) (out []string) {
	for _, l := range h.Leases {
		out = append(out, l.Addr.String())
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/pod"
)

// newHelpers are the commands that the lab itself runs, inside the nest and on its hosts.
func newHelpers() []*cobra.Command {
	host := &cobra.Command{
		Use: "host NAME", Short: "Become a host of the lab", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error { return lab.BecomeHost(args[0]) },
	}
	pods := &cobra.Command{Use: "pod", Short: "Make and remove pods on this host", Hidden: true}
	pods.AddCommand(newPodAdd(), &cobra.Command{
		Use: "del NAME", Short: "Remove a pod", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return pod.Del(cmd.Context(), args[0]) },
	})
	return []*cobra.Command{host, pods, newWeb()}
}

func newPodAdd() *cobra.Command {
	var publish []string
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a pod: a namespace, its pause process and the CNI chain; prints it as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ports, err := parsePorts(publish)
			if err != nil {
				return err
			}
			p, err := pod.Add(cmd.Context(), args[0], lab.Program("pause"), ports)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
		},
	}
	cmd.Flags().StringArrayVar(&publish, "publish", nil, "HOSTPORT:CONTAINERPORT, TCP; repeatable")
	return cmd
}

func parsePorts(publish []string) ([]pod.PortMapping, error) {
	var out []pod.PortMapping
	var errs []error
	for i, s := range publish {
		host, container, _ := strings.Cut(s, ":")
		h, err1 := strconv.ParseUint(host, 10, 16)
		c, err2 := strconv.ParseUint(container, 10, 16)
		if err1 != nil || err2 != nil || h == 0 || c == 0 {
			errs = append(errs, fmt.Errorf("publish[%d]: %q is not HOSTPORT:CONTAINERPORT", i, s))
			continue
		}
		out = append(out, pod.PortMapping{HostPort: int(h), ContainerPort: int(c), Protocol: "tcp"})
	}
	return out, errors.Join(errs...)
}

func newWeb() *cobra.Command {
	var container, podName string
	var port int
	cmd := &cobra.Command{
		Use: "web", Short: "Serve HTTP as an application container of the lab", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return pod.Serve(ctx, container, podName, port)
		},
	}
	cmd.Flags().StringVar(&container, "container", "web", "name of the container")
	cmd.Flags().StringVar(&podName, "pod", "", "name of the pod")
	cmd.Flags().IntVar(&port, "port", 8080, "TCP port")
	return cmd
}

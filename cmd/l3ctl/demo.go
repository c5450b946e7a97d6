// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newDemo(name *string, inner bool) *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Tell the article's story in a lab, checking every claim", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("not yet") },
	}
}

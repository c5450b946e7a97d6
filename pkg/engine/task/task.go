// SPDX-License-Identifier: Apache-2.0

// Package task runs a daemon's parts side by side until one fails or the context ends.
package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"
)

// Task is one part of a daemon. Run blocks until ctx ends (and then returns nil or ctx.Err) or until it cannot go on.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Run runs all tasks and waits for every one to return. The first failure cancels the others and is returned,
// with the task's name; the end of ctx is no failure. A task that returns nil early does not stop the rest.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		g.Go(func() error {
			err := t.Run(gctx)
			if err == nil || errors.Is(err, context.Canceled) && gctx.Err() != nil {
				return nil
			}
			log.Error("task failed", "task", t.Name, "error", err)
			return fmt.Errorf("%s: %w", t.Name, err)
		})
	}
	return g.Wait()
}

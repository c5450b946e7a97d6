// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func blocked(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	quiet := slog.New(slog.DiscardHandler)
	t.Run("a failure stops the others and names its task", func(t *testing.T) {
		err := Run(t.Context(), quiet, Task{"waits", blocked}, Task{"fails", func(context.Context) error { return boom }})
		if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "fails: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the end of the context is no failure", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Run(ctx, quiet, Task{"waits", blocked}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a task that is done does not stop the rest", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rest := func(ctx context.Context) error {
			if ctx.Err() != nil {
				return boom
			}
			cancel()
			return nil
		}
		if err := Run(ctx, quiet, Task{"done", func(context.Context) error { return nil }}, Task{"rest", rest}); err != nil {
			t.Error(err)
		}
	})
}

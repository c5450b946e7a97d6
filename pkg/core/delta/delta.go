// SPDX-License-Identifier: Apache-2.0

// Package delta compares what should be with what is, and says in which order to mend the difference.
package delta

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Change is one step from actual to desired. Old is zero for an addition, New for a removal.
type Change[K cmp.Ordered, V any] struct {
	Key      K
	Old, New V
}

// Plan is the sorted difference of two maps. The zero Plan changes nothing.
type Plan[K cmp.Ordered, V any] struct {
	Add, Replace, Remove []Change[K, V]
}

// Diff returns the plan that turns actual into desired, each part sorted by key.
func Diff[K cmp.Ordered, V any](desired, actual map[K]V, equal func(a, b V) bool) Plan[K, V] {
	var p Plan[K, V]
	for k, want := range desired {
		have, ok := actual[k]
		switch {
		case !ok:
			p.Add = append(p.Add, Change[K, V]{Key: k, New: want})
		case !equal(have, want):
			p.Replace = append(p.Replace, Change[K, V]{Key: k, Old: have, New: want})
		}
	}
	for k, have := range actual {
		if _, ok := desired[k]; !ok {
			p.Remove = append(p.Remove, Change[K, V]{Key: k, Old: have})
		}
	}
	for _, part := range [][]Change[K, V]{p.Add, p.Replace, p.Remove} {
		slices.SortFunc(part, func(a, b Change[K, V]) int { return cmp.Compare(a.Key, b.Key) })
	}
	return p
}

// Empty reports that nothing needs to be done.
func (p Plan[K, V]) Empty() bool { return len(p.Add)+len(p.Replace)+len(p.Remove) == 0 }

// String prints the plan a line per change, in the manner of diff: "+ key: new", "~ key: old -> new", "- key: old".
func (p Plan[K, V]) String() string {
	var b strings.Builder
	for _, c := range p.Add {
		fmt.Fprintf(&b, "+ %v: %v\n", c.Key, c.New)
	}
	for _, c := range p.Replace {
		fmt.Fprintf(&b, "~ %v: %v -> %v\n", c.Key, c.Old, c.New)
	}
	for _, c := range p.Remove {
		fmt.Fprintf(&b, "- %v: %v\n", c.Key, c.Old)
	}
	return b.String()
}

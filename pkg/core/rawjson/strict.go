// SPDX-License-Identifier: Apache-2.0

package rawjson

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Field is one key of an object and where Decode puts its value.
type Field struct {
	Key  string
	Into any
}

// Read decodes the fields, and names each value that does not fit with its place; fields that fit are set all the same.
// place is what stands before a key: "" or "ipam.".
func (o Object) Read(place string, fields []Field) error {
	var errs []error
	for _, f := range fields {
		if err := o.Get(f.Key).Decode(f.Into); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", place, f.Key, err))
		}
	}
	return errors.Join(errs...)
}

// Unknown names every key that is neither a field nor accepted by also (nil: none), and the field that may have been
// meant. Keys match in any letter case, as Get finds them.
func (o Object) Unknown(place string, fields []Field, also func(key string) bool) error {
	var errs []error
	for _, key := range o.keys() {
		known := slices.ContainsFunc(fields, func(f Field) bool { return strings.EqualFold(f.Key, key) })
		if known || also != nil && also(key) {
			continue
		}
		hint := ""
		if f := nearest(key, fields); f != "" {
			hint = fmt.Sprintf("; did you mean %s?", f)
		}
		errs = append(errs, fmt.Errorf("%s%s: there is no such key%s", place, key, hint))
	}
	return errors.Join(errs...)
}

// keys are the object's, sorted.
func (o Object) keys() []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// nearest is the field that a typing mistake may have made key of: at most a third of its letters are wrong.
func nearest(key string, fields []Field) string {
	best, least := "", len(key)/3+1
	for _, f := range fields {
		if d := distance(strings.ToLower(key), strings.ToLower(f.Key)); d < least {
			best, least = f.Key, d
		}
	}
	return best
}

// distance counts the letters to insert, leave out, replace or swap with their neighbour to make b of a.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// misfit says in plain words that a value is not of the kind that was wanted.
func misfit(v Value, wanted string) error {
	const most = 40
	if len(v) > most {
		return fmt.Errorf("%s... is not %s", v[:most], wanted)
	}
	return fmt.Errorf("%s is not %s", v, wanted)
}

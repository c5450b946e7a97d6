// SPDX-License-Identifier: Apache-2.0

package file

import (
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

var (
	yamlLine     = regexp.MustCompile(`yaml: line (\d+):`)
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	wrongType    = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field \w+\.([\w.]+) of type (\S+)`)
	fieldPath    = regexp.MustCompile(`^[a-z][\w.\[\]]*$`)
	wrapping     = regexp.MustCompile(`^error (?:converting YAML to JSON|unmarshaling JSON): (?:while decoding JSON: )?(?:yaml: )?(?:line \d+: )?`)
)

// place takes the path of a field out of an error's text, ours ("spec.ports[0].port: ...") or a decoder's, and says
// what is wrong in a person's words.
func place(text string) (path, what string) {
	text = wrapping.ReplaceAllString(text, "")
	if m := unknownField.FindStringSubmatch(text); m != nil {
		return m[1], m[1] + ": unknown key"
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		return m[2], m[2] + ": a " + m[1] + " where " + m[3] + " belongs"
	}
	if head, _, ok := strings.Cut(text, ": "); ok && fieldPath.MatchString(head) {
		return head, text
	}
	return "", text
}

// lineOf finds the line (from 1) of a field in a YAML or JSON document. Decoders name fields without their indices, or
// only by their own name: then it is the first that fits. A path that is not there gives the nearest of its parents.
func lineOf(doc []byte, path string) int {
	var root yamlv3.Node
	if err := yamlv3.Unmarshal(doc, &root); err != nil || len(root.Content) == 0 {
		return 1
	}
	steps := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
	line, found := walk(root.Content[0], root.Content[0].Line, steps)
	if !found && len(steps) > 0 {
		if n, ok := anywhere(root.Content[0], steps[len(steps)-1]); ok {
			return n
		}
	}
	return line
}

// walk follows the path down from n, which began at the given line.
func walk(n *yamlv3.Node, line int, steps []string) (int, bool) {
	if len(steps) == 0 {
		return line, true
	}
	switch n.Kind {
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == steps[0] {
				return walk(n.Content[i+1], n.Content[i].Line, steps[1:])
			}
		}
	case yamlv3.SequenceNode:
		if i, err := strconv.Atoi(steps[0]); err == nil && i < len(n.Content) {
			return walk(n.Content[i], n.Content[i].Line, steps[1:])
		}
		for _, c := range n.Content { // the path has no index: the first element that has the rest
			if l, ok := walk(c, c.Line, steps); ok {
				return l, true
			}
		}
	}
	return line, false
}

func anywhere(n *yamlv3.Node, key string) (int, bool) {
	for i, c := range n.Content {
		if n.Kind == yamlv3.MappingNode && i%2 == 0 {
			if c.Value == key {
				return c.Line, true
			}
			continue
		}
		if l, ok := anywhere(c, key); ok {
			return l, true
		}
	}
	return 0, false
}

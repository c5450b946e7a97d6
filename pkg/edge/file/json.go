// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	yamlv3 "go.yaml.in/yaml/v3"
)

// objects cuts a document that begins as JSON does into its objects, which may stand one behind the other. What is no JSON
// is one piece: YAML knows braces too.
func (d *doc) objectsIn(text []byte) (pieces []document) {
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		end := int(dec.InputOffset())
		if err != nil {
			end += len(text[end:]) - len(bytes.TrimLeft(text[end:], " \t\r\n"))
		}
		switch {
		case errors.Is(err, io.EOF):
			return pieces
		case err != nil && len(pieces) == 0:
			return []document{{text, 0}}
		case err != nil:
			d.broken = append(d.broken, Problem{Line: lineAt(text, end) + 1, What: fmt.Sprintf("what follows the object is none: %s", err)})
			return pieces
		}
		begin := end - len(raw)
		if key, at := repeated(raw); at >= 0 {
			d.broken = append(d.broken, Problem{Line: lineAt(text, begin+at) + 1, What: fmt.Sprintf("key %q is there twice in one object", key)})
		}
		line := lineAt(text, begin)
		pieces = append(pieces, document{raw, line})
	}
}

// lineAt is the number of lines before the one that holds the byte.
func lineAt(text []byte, at int) int { return bytes.Count(text[:min(at, len(text))], []byte("\n")) }

// repeated finds a key that stands twice in one object of valid JSON, of which decoders take the last; at < 0: there is none.
func repeated(text []byte) (key string, at int) {
	var open []map[string]bool // objects and, nil, lists
	isKey := false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			open, isKey = append(open, map[string]bool{}), true
		case '[':
			open, isKey = append(open, nil), false
		case '}', ']':
			open, isKey = open[:len(open)-1], false
		case ',':
			isKey = open[len(open)-1] != nil
		case '"':
			begin := i
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if !isKey {
				continue
			}
			isKey = false
			k := unquote(text[begin : i+1])
			if open[len(open)-1][k] {
				return k, begin
			}
			open[len(open)-1][k] = true
		}
	}
	return "", -1
}

func unquote(quoted []byte) string {
	var s string
	if bytes.IndexByte(quoted, '\\') < 0 || json.Unmarshal(quoted, &s) != nil {
		return string(quoted[1 : len(quoted)-1])
	}
	return s
}

// trailing reports what follows the end of a YAML document, which decoders do not look at. Only braces and "..." end one.
func trailing(text []byte) (line int, err error) {
	if first := bytes.TrimLeft(text, " \t\r\n"); first[0] != '{' && first[0] != '[' && !bytes.Contains(text, []byte("\n...")) {
		return 0, nil
	}
	dec := yamlv3.NewDecoder(bytes.NewReader(text))
	var first, second yamlv3.Node
	if err := dec.Decode(&first); err != nil {
		return 0, nil //nolint:nilerr // whoever reads it says so
	}
	err = dec.Decode(&second)
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	line = second.Line
	if err != nil {
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1]) // of the row before
			line++
		}
	}
	return max(line, 1), errors.New("what follows the end of the document is not read: begin it with a line \"---\"")
}

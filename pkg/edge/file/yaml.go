// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"slices"
)

// plain turns YAML as people and kubectl write it into JSON, in a tenth of the time that the whole language takes: blocks
// of "key: value" and "- value", plain and simply quoted words, lists and maps in brackets. Of anything else, and of
// everything wrong, ok is false: then the library has its say. A test holds it to the library's words.
func plain(text []byte) (json []byte, ok bool) {
	if bytes.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		return nil, false
	}
	y := blocks{out: make([]byte, 0, len(text)+len(text)/4), lines: make([]yamlRow, 0, bytes.Count(text, []byte("\n"))+1)}
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		line = bytes.TrimRight(line, " ")
		body := bytes.TrimLeft(line, " ")
		if len(body) == 0 || body[0] == '#' {
			continue
		}
		y.lines = append(y.lines, yamlRow{len(line) - len(body), body})
	}
	if len(y.lines) == 0 || !y.block() || y.at != len(y.lines) {
		return nil, false
	}
	return y.out, true
}

type yamlRow struct {
	indent int
	text   []byte
}

// blocks reads rows from at onwards and appends JSON.
type blocks struct {
	lines []yamlRow
	at    int
	out   []byte
}

func isItem(text []byte) bool { return len(text) > 1 && text[0] == '-' && text[1] == ' ' }

func (y *blocks) block() bool {
	if isItem(y.lines[y.at].text) {
		return y.list(y.lines[y.at].indent)
	}
	return y.mapping(y.lines[y.at].indent)
}

// more reports that the next row is of the block.
func (y *blocks) more(indent int, items bool) bool {
	return y.at < len(y.lines) && y.lines[y.at].indent == indent && isItem(y.lines[y.at].text) == items
}

// ended reports that the next row, if any, does not hang below what was read.
func (y *blocks) ended(indent int) bool {
	return y.at >= len(y.lines) || y.lines[y.at].indent <= indent
}

func (y *blocks) mapping(indent int) bool {
	var keys [][]byte
	y.out = append(y.out, '{')
	for y.more(indent, false) {
		key, value, ok := cutKey(y.lines[y.at].text)
		if !ok || len(keys) > 100 || slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return false
		}
		if keys = append(keys, key); len(keys) > 1 {
			y.out = append(y.out, ',')
		}
		y.out = append(append(append(y.out, '"'), key...), '"', ':')
		if y.at++; len(value) > 0 {
			if !y.scalar(value) {
				return false
			}
		} else if !y.below(indent) {
			return false
		}
		if !y.ended(indent) {
			return false
		}
	}
	y.out = append(y.out, '}')
	return y.ended(indent)
}

// below reads what a key without a value on its own row holds: a block, or a list that is not even indented, or nothing.
func (y *blocks) below(indent int) bool {
	switch {
	case y.at < len(y.lines) && y.lines[y.at].indent > indent:
		return y.block()
	case y.more(indent, true):
		return y.list(indent)
	}
	y.out = append(y.out, "null"...)
	return true
}

func (y *blocks) list(indent int) bool {
	y.out = append(y.out, '[')
	for first := true; y.more(indent, true); first = false {
		if !first {
			y.out = append(y.out, ',')
		}
		row := &y.lines[y.at]
		body := bytes.TrimLeft(row.text[1:], " ")
		_, _, isKey := cutKey(body)
		if isKey || isItem(body) { // the block begins on the item's own row
			*row = yamlRow{row.indent + len(row.text) - len(body), body}
			if !y.block() {
				return false
			}
		} else if y.at++; !y.scalar(body) {
			return false
		}
		if !y.ended(indent) {
			return false
		}
	}
	y.out = append(y.out, ']')
	return y.ended(indent)
}

// cutKey cuts "key: value" or "key:".
func cutKey(text []byte) (key, value []byte, ok bool) {
	n := 0
	for n < len(text) && wordly(text[n]) {
		n++
	}
	if n == 0 || n > 1000 || n >= len(text) || text[n] != ':' || !isWord(text[:n]) {
		return nil, nil, false
	}
	rest := text[n+1:]
	if len(rest) > 0 && rest[0] != ' ' {
		return nil, nil, false
	}
	return text[:n], bytes.TrimLeft(rest, " "), true
}

// wordly characters mean nothing to YAML, wherever they stand in a word that begins with a letter.
func wordly(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '/' || c == '-' || c == '_'
}

// isWord reports that a row of wordly characters is a string to YAML 1.1, and not a number, a truth or nothing.
func isWord(s []byte) bool {
	if c := s[0] | 0x20; c < 'a' || c > 'z' {
		return false
	}
	if len(s) <= 5 {
		switch string(bytes.ToLower(s)) {
		case "true", "false", "yes", "no", "on", "off", "y", "n", "null":
			return false
		}
	}
	return true
}

// scalar appends one value that ends with its row.
func (y *blocks) scalar(v []byte) bool {
	switch v[0] {
	case '"', '\'':
		return y.quoted(v)
	case '[', '{':
		return y.flow(v)
	}
	return y.word(v)
}

func (y *blocks) quoted(v []byte) bool {
	if len(v) < 2 || v[len(v)-1] != v[0] {
		return false
	}
	for _, c := range v[1 : len(v)-1] {
		if c == '"' || c == '\'' || c == '\\' {
			return false
		}
	}
	y.out = append(append(append(y.out, '"'), v[1:len(v)-1]...), '"')
	return true
}

// word appends a plain word or number, or leaves it to others.
func (y *blocks) word(v []byte) bool {
	digits, dots, colons := 0, 0, 0
	for _, c := range v {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			dots++
		case c == ':':
			colons++
		case !wordly(c):
			return false
		}
	}
	switch last := v[len(v)-1]; {
	case last == ':':
		return false
	case string(v) == "true", string(v) == "false", string(v) == "null":
		y.out = append(y.out, v...)
		return true
	case digits == len(v) && len(v) < 16 && (v[0] != '0' || len(v) == 1): // a number as JSON has it
		y.out = append(y.out, v...)
		return true
	case isWord(v):
	case v[0] >= '0' && v[0] <= '9' && (colons == 0 && dots >= 3 && digits+dots == len(v) || colons == 0 && dots == 3 && bytes.IndexByte(v, '/') > 0 || bytes.Contains(v, []byte("::"))):
		// an address or prefix is no number
	default:
		return false
	}
	y.out = append(append(append(y.out, '"'), v...), '"')
	return true
}

// flow appends a list or map in brackets.
func (y *blocks) flow(v []byte) bool {
	rest, ok := y.bracket(v, 0)
	return ok && len(rest) == 0
}

// deepest is how far brackets may stand in brackets.
const deepest = 10

// bracket appends the list or map that v begins with and returns what follows it.
func (y *blocks) bracket(v []byte, depth int) (rest []byte, ok bool) {
	end := byte(']')
	if v[0] == '{' {
		end = '}'
	}
	y.out = append(y.out, v[0])
	var keys [][]byte
	v = bytes.TrimLeft(v[1:], " ")
	for first := true; len(v) > 0; first = false {
		if v[0] == end && first {
			y.out = append(y.out, end)
			return v[1:], true
		}
		if !first {
			y.out = append(y.out, ',')
		}
		if end == '}' {
			key, value, ok := cutKey(v)
			if !ok || slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
				return nil, false
			}
			keys = append(keys, key)
			y.out = append(append(append(y.out, '"'), key...), '"', ':')
			v = value
		}
		if v, ok = y.within(v, depth); !ok || len(v) == 0 {
			return nil, false
		}
		switch {
		case v[0] == end:
			y.out = append(y.out, end)
			return v[1:], true
		case v[0] != ',':
			return nil, false
		}
		v = bytes.TrimLeft(v[1:], " ")
	}
	return nil, false
}

// within appends one value in brackets and returns what follows it.
func (y *blocks) within(v []byte, depth int) (rest []byte, ok bool) {
	if len(v) == 0 || depth >= deepest {
		return nil, false
	}
	switch c := v[0]; c {
	case '[', '{':
		rest, ok = y.bracket(v, depth+1)
	case '"', '\'':
		n := bytes.IndexByte(v[1:], c) + 2
		rest, ok = v[n:], n > 1 && y.quoted(v[:n])
	default:
		n := bytes.IndexAny(v, ",[]{}")
		if n < 0 {
			return nil, false
		}
		word := bytes.TrimRight(v[:n], " ")
		rest, ok = v[n:], len(word) > 0 && bytes.IndexByte(word, ':') < 0 && y.word(word)
	}
	return bytes.TrimLeft(rest, " "), ok
}

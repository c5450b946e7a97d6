// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"regexp"
	"strings"
)

// word is a key that announces a secret, as YAML, JSON, logs and switches write it. A passwordFile names a file and is none.
const word = `(?i:[\w-]*(?:password|passwd|passphrase|secret|token|credentials?|(?:secret|access|private|api|client|authentication)[_-]?key(?:[_-]?data)?)|md5|authorization)`

var (
	// valued is such a key and the value behind it: quoted, or to the next blank; of a scheme (Bearer ...) both words.
	valued = regexp.MustCompile(`("?\b` + word + `"?)([ \t]*[:=][ \t]*|[ \t]+)("(?:[^"\\]|\\.)*"|'[^']*'|(?i:bearer|basic)[ \t]+\S+|\S+)`)
	// line is a key of YAML with a plain value, which may have blanks in it and ends with the line or a remark.
	line = regexp.MustCompile(`^([ \t]*(?:- +)?"?` + word + `"?:[ \t]+)([^"'\s{\[|>&*!#].*?)([ \t]+#.*)?$`)
	// block is a key of YAML whose value is in the lines below.
	block  = regexp.MustCompile(`^([ \t]*(?:- +)?)"?` + word + `"?:[ \t]*(?:[|>][-+0-9]*)?[ \t]*(?:#.*)?$`)
	bearer = regexp.MustCompile(`(?i)\b(bearer|basic)[ \t]+[\w.~+/=-]{8,}`)
	user   = regexp.MustCompile(`(://[^/@\s:]*):[^/@\s]+@`)
	pem    = regexp.MustCompile(`(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*(-----END|$)`)
)

const removed = "(removed)"

// Redact takes secrets out of a configuration or a log, so that it can be given away.
func Redact(text string) string {
	text = pem.ReplaceAllString(text, "$1"+removed+"$2")
	lines := strings.SplitAfter(text, "\n")
	out := lines[:0]
	inside := -1 // indentation of the key whose block is being left out
	for _, l := range lines {
		bare := strings.TrimRight(l, "\r\n")
		if inside >= 0 && (strings.TrimSpace(bare) == "" || indentation(bare) > inside) {
			continue
		}
		inside = -1
		if m := block.FindStringSubmatch(bare); m != nil {
			inside = len(m[1])
			out = append(out, strings.TrimRight(strings.TrimSuffix(bare, "\n"), " \t")+" "+removed+l[len(bare):])
			continue
		}
		bare = line.ReplaceAllString(bare, "${1}"+removed+"${3}")
		bare = valued.ReplaceAllString(bare, "$1$2"+removed)
		bare = bearer.ReplaceAllString(bare, "$1 "+removed)
		out = append(out, user.ReplaceAllString(bare, "$1:"+removed+"@")+l[len(strings.TrimRight(l, "\r\n")):])
	}
	return strings.Join(out, "")
}

func indentation(l string) int { return len(l) - len(strings.TrimLeft(l, " \t")) }

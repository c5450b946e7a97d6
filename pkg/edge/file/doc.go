// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
)

// doc is what one document of a stream says. Its lines count from its own first one, so that it stays true when others
// before it grow; it is immutable.
type doc struct {
	sum           uint64 // of its text
	objects       []placed
	broken, notes []Problem
}

// placed is an object, its key (kind, namespace and name) and its line.
type placed struct {
	key    string
	line   int
	object kubeobj.Object
}

// span is a document in its place: line is the number of the line before its first.
type span struct {
	*doc
	line int
}

// at is a problem of the document where it stands.
func (s span) at(file string, p Problem) Problem {
	return Problem{File: file, Line: s.line + p.Line, What: p.What}
}

var seed = maphash.MakeSeed()

// parse reads a stream of YAML or JSON documents. Documents that are among the old ones are not read again.
func parse(text []byte, old []span) []span {
	docs := split(text)
	spans, sums := make([]span, len(docs)), make([]uint64, len(docs))
	known := func(i, j int) bool {
		if sums[i] != old[j].sum {
			return false
		}
		spans[i].doc = old[j].doc
		return true
	}
	for i, d := range docs {
		spans[i].line, sums[i] = d.line, maphash.Bytes(seed, d.text)
	}
	head, tail := 0, 0
	for head < min(len(docs), len(old)) && known(head, head) {
		head++
	}
	for tail < min(len(docs), len(old))-head && known(len(docs)-1-tail, len(old)-1-tail) {
		tail++
	}
	rest := map[uint64]*doc{}
	for _, s := range old[head : len(old)-tail] {
		rest[s.sum] = s.doc
	}
	var fresh []int
	for i := head; i < len(docs)-tail; i++ {
		if d := rest[sums[i]]; d != nil {
			spans[i].doc = d
			continue
		}
		spans[i].doc = &doc{sum: sums[i]}
		fresh = append(fresh, i)
	}
	sideBySide(len(fresh), func(i int) { spans[fresh[i]].read(docs[fresh[i]].text) })
	return spans
}

// sideBySide does n things on all processors and returns when all are done: nothing of it outlives the call.
func sideBySide(n int, do func(i int)) {
	const piece = 64
	workers := min(runtime.GOMAXPROCS(0), (n+piece-1)/piece)
	if workers < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wg.Wait()
}

// document is a part of a file: its text and the number of the line before its first.
type document struct {
	text []byte
	line int
}

// split cuts a YAML stream at its "---" lines. Directives before one ("%YAML 1.1") say nothing that a manifest needs.
func split(data []byte) []document {
	var out []document
	begin, beginLine, line := 0, 0, 0
	add := func(end int) {
		if text := data[begin:end]; len(bytes.TrimSpace(text)) > 0 && !directives(text) {
			out = append(out, document{text, beginLine})
		}
	}
	for at := 0; at < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if isSeparator(data[at:next]) {
			add(at)
			begin, beginLine = next, line+1
		}
		at = next
	}
	add(len(data))
	return out
}

// directives reports that a piece of a stream has some and no document.
func directives(text []byte) (any bool) {
	if bytes.IndexByte(text, '%') < 0 {
		return false
	}
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		switch body := bytes.TrimSpace(line); {
		case len(line) > 0 && line[0] == '%':
			any = true
		case len(body) > 0 && body[0] != '#':
			return false
		}
	}
	return any
}

func isSeparator(row []byte) bool {
	rest, ok := bytes.CutPrefix(row, []byte("---"))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || len(bytes.TrimRight(rest, "\r\n")) == 0)
}

// twice reports the objects of a stream that stand in it more than once.
func twice(spans []span) []Problem {
	n := 0
	for _, s := range spans {
		n += len(s.objects)
	}
	first := make(map[string]int, n)
	var out []Problem
	for _, s := range spans {
		for _, o := range s.objects {
			if line, dup := first[o.key]; dup {
				out = append(out, Problem{Line: s.line + o.line, What: fmt.Sprintf("%s is also at line %d; that one counts", o.key, line)})
				continue
			}
			first[o.key] = s.line + o.line
		}
	}
	return out
}

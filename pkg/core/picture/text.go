// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"fmt"
	"strings"
)

// Text is the picture in box-drawing characters, for a terminal.
func (p Picture) Text() string {
	root := tree{text: fmt.Sprintf("%s  (%s)", p.Switch.Name, p.Switch.Note)}
	for _, s := range p.Segments {
		seg := tree{text: s.label()}
		for _, h := range s.Hosts {
			x := tree{text: fmt.Sprintf("%s  %s", h.Name, h.Addr)}
			if h.Note != "" {
				x.text += fmt.Sprintf("  [session %s: %s]", h.Session, h.Note)
			}
			if h.Bridge != "" {
				b := tree{text: h.bridgeText()}
				for _, pod := range h.Pods {
					b.below = append(b.below, tree{text: fmt.Sprintf("%s  %s  %s", pod.Name, pod.Addr, braces(pod.Shared))})
				}
				x.below = append(x.below, b)
			}
			seg.below = append(seg.below, x)
		}
		root.below = append(root.below, seg)
	}
	var b strings.Builder
	root.write(&b, "", "")
	for _, s := range p.Services {
		x := tree{text: fmt.Sprintf("service %s  %s  %s", s.Name, s.At, s.Mode)}
		for _, e := range s.Endpoints {
			x.below = append(x.below, tree{text: e})
		}
		if len(s.Endpoints) == 0 {
			x.below = append(x.below, tree{text: "no endpoint: refused"})
		}
		b.WriteString("\n")
		x.write(&b, "", "")
	}
	return b.String()
}

func braces(s string) string {
	if s == "" {
		return ""
	}
	return "{" + s + "}"
}

type tree struct {
	text  string
	below []tree
}

func (t tree) write(b *strings.Builder, first, rest string) {
	b.WriteString(strings.TrimRight(first+t.text, " ") + "\n")
	for i, x := range t.below {
		if i == len(t.below)-1 {
			x.write(b, rest+"└── ", rest+"    ")
		} else {
			x.write(b, rest+"├── ", rest+"│   ")
		}
	}
}

// DOT is the picture in Graphviz's language.
func (p Picture) DOT() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("graph l3edge {\n  node [shape=box, fontname=sans];")
	say("  mls [label=%q, shape=box3d];", p.Switch.Name+"\\n"+p.Switch.Note)
	p.each(func(seg int, s Segment) {
		say("  s%d [label=%q, shape=ellipse];\n  mls -- s%d;", seg, s.label(), seg)
	}, func(seg, id int, h Host) {
		say("  h%d [label=%q];\n  s%d -- h%d [style=%s];", id, h.Name+"\\n"+h.Addr.String(), seg, id, map[Health]string{Up: "solid", Down: "dashed", None: "dotted"}[h.Session])
		if h.Bridge != "" {
			say("  b%d [label=%q];\n  h%d -- b%d;", id, h.bridgeText(), id, id)
		}
	}, func(id, n int, pod Pod) {
		say("  p%d_%d [label=%q, style=rounded];\n  b%d -- p%d_%d;", id, n, pod.Name+"\\n"+pod.Addr.String()+"\\n"+pod.Shared, id, id, n)
	})
	say("}")
	return strings.ReplaceAll(b.String(), `\\n`, `\n`)
}

// Mermaid is the picture for a page that draws Mermaid.
func (p Picture) Mermaid() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("flowchart TD\n  mls[[\"%s<br>%s\"]]", p.Switch.Name, p.Switch.Note)
	p.each(func(seg int, s Segment) {
		say("  mls --- s%d([\"%s\"])", seg, s.label())
	}, func(seg, id int, h Host) {
		say("  s%d %s h%d[\"%s<br>%s\"]", seg, map[Health]string{Up: "---", Down: "-. down .-", None: "-.-"}[h.Session], id, h.Name, h.Addr)
		if h.Bridge != "" {
			say("  h%d --- b%d[\"%s\"]", id, id, h.bridgeText())
		}
	}, func(id, n int, pod Pod) {
		say("  b%d --- p%d_%d(\"%s<br>%s<br>%s\")", id, id, n, pod.Name, pod.Addr, pod.Shared)
	})
	return b.String()
}

// each walks the picture from the top.
func (p Picture) each(segment func(int, Segment), host func(seg, id int, h Host), pod func(id, n int, pod Pod)) {
	id := 0
	for i, s := range p.Segments {
		segment(i, s)
		for _, h := range s.Hosts {
			host(i, id, h)
			for n, x := range h.Pods {
				pod(id, n, x)
			}
			id++
		}
	}
}

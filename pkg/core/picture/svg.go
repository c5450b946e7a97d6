// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the drawing, in the SVG's own units (pixels at 1:1). A page of A4 held upright shows some 1,200 of them well.
const (
	margin    = 28
	boxWidth  = 176
	boxGap    = 16
	headLine  = 16
	podHeight = 44
	podsShown = 5 // of one host; the rest is a number
	trunkX    = margin
	drop      = 26 // from a segment's line to its hosts
)

// shape is one thing of the drawing. Text has a size and no box of its own: it must not touch another.
type shape struct {
	kind       string // "rect", "line", "text"
	x, y, w, h float64
	class, say string
	size       float64
}

// drawing is a picture laid out.
type drawing struct {
	shapes        []shape
	width, height float64
}

func (d *drawing) rect(x, y, w, h float64, class string) {
	d.shapes = append(d.shapes, shape{kind: "rect", x: x, y: y, w: w, h: h, class: class})
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	d.shapes = append(d.shapes, shape{kind: "line", x: x1, y: y1, w: x2, h: y2, class: class})
}

// text writes with its baseline at y, cut to fit into room.
func (d *drawing) text(x, y, size, room float64, class, format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if most := int(room / (size * charWidth)); len([]rune(s)) > most && most > 1 {
		s = string([]rune(s)[:most-1]) + "…"
	}
	d.shapes = append(d.shapes, shape{kind: "text", x: x, y: y, w: float64(len([]rune(s))) * size * charWidth, h: size, class: class, say: s, size: size})
}

// charWidth is the mean width of a character in Helvetica and its kin, by its size, on the safe side.
const charWidth = 0.58

// SVG is the picture for a page.
func (p Picture) SVG() string {
	d := p.layout()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="Helvetica, Arial, sans-serif">
<style>
.paper{fill:#fff}.switch{fill:#1f3a5f;stroke:#1f3a5f}.host{fill:#f4f7fb;stroke:#1f3a5f}.bridge{fill:#dce8f5;stroke:#7f9cbf}.pod{fill:#fff;stroke:#7f9cbf}.service{fill:#fdf6e3;stroke:#c9a94b}
.wire{stroke:#1f3a5f;stroke-width:3}.up{stroke:#2b8a3e;stroke-width:2.5}.down{stroke:#c92a2a;stroke-width:2.5;stroke-dasharray:6 4}.none{stroke:#868e96;stroke-width:1.5}
.light{fill:#fff}.dark{fill:#12263f}.strong{fill:#12263f;font-weight:bold}.dim{fill:#52606d}.bad{fill:#c92a2a;font-weight:bold}
</style>
`, d.width, d.height, d.width, d.height)
	for _, s := range d.shapes {
		switch s.kind {
		case "rect":
			fmt.Fprintf(&b, "<rect class=%q x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" rx=\"4\"/>\n", s.class, s.x, s.y, s.w, s.h)
		case "line":
			fmt.Fprintf(&b, "<line class=%q x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\"/>\n", s.class, s.x, s.y, s.w, s.h)
		case "text":
			fmt.Fprintf(&b, "<text class=%q x=\"%.0f\" y=\"%.0f\" font-size=\"%.1f\">%s</text>\n", s.class, s.x, s.y, s.size, html.EscapeString(s.say))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// layout puts the switch on top, each segment below it in rows of hosts, and the services at the bottom. A trunk on the left
// leads from the switch to every row.
func (p Picture) layout() drawing {
	columns, total := 1, 0
	for _, s := range p.Segments {
		columns, total = max(columns, len(s.Hosts)), total+len(s.Hosts)
	}
	columns = max(4, min(columns, int(math.Ceil(math.Sqrt(float64(total)*1.7))), 8))
	d := &drawing{width: 2*margin + 24 + float64(columns)*(boxWidth+boxGap)}
	d.rect(0, 0, d.width, 0, "paper") // its height comes last
	y := float64(margin)
	d.rect(margin, y, d.width-2*margin, 40, "switch")
	d.text(margin+14, y+26, 17, 400, "light", "%s", p.Switch.Name)
	d.text(margin+14+float64(len(p.Switch.Name))*17*charWidth+18, y+25, 12, 500, "light", "%s", p.Switch.Note)
	y += 40
	trunk := y
	for _, s := range p.Segments {
		y += 30
		d.text(trunkX+36, y, 12.5, 500, "strong", "%s", s.label())
		y += 8
		for len(s.Hosts) > 0 {
			n := min(columns, len(s.Hosts))
			d.line(trunkX, trunk, trunkX, y, "wire")
			trunk = y
			y = d.row(s.Hosts[:n], y)
			s.Hosts = s.Hosts[n:]
		}
	}
	y = d.services(p.Services, y+24, columns)
	d.height = y + margin
	d.shapes[0].h = d.height
	return *d
}

// row draws hosts below one line of the segment and returns where it ends.
func (d *drawing) row(hosts []Host, y float64) float64 {
	first := float64(margin + 24)
	d.line(trunkX, y, first+float64(len(hosts)-1)*(boxWidth+boxGap)+boxWidth/2, y, "wire")
	end := y
	for i, h := range hosts {
		x := first + float64(i)*(boxWidth+boxGap)
		d.line(x+boxWidth/2, y+2, x+boxWidth/2, y+drop, string(h.Session))
		end = max(end, d.host(h, x, y+drop))
	}
	return end + 18
}

// host draws one host and returns where it ends.
func (d *drawing) host(h Host, x, y float64) float64 {
	const pad, room = 10, boxWidth - 20
	box := len(d.shapes)
	d.rect(x, y, boxWidth, 0, "host")
	top := y
	y += headLine + 4
	d.text(x+pad, y, 13, room, "strong", "%s", h.Name)
	y += headLine
	d.text(x+pad, y, 11.5, room, "dark", "%s", h.Addr)
	if h.Note != "" {
		y += headLine - 1
		class := "dim"
		if h.Session == Down {
			class = "bad"
		}
		d.text(x+pad, y, 10.5, room, class, "%s: %s", map[Health]string{Up: "session up", Down: "session down", None: "seen"}[h.Session], h.Note)
	}
	y += 10
	if h.Bridge != "" {
		d.rect(x+6, y, boxWidth-12, 22, "bridge")
		d.text(x+pad+2, y+15, 11, room-4, "dark", "%s", h.bridgeText())
		y += 28
		for i, p := range h.Pods {
			if i == podsShown-1 && len(h.Pods) > podsShown {
				d.text(x+pad+2, y+12, 11, room, "dim", "and %d pods more", len(h.Pods)-i)
				y += 20
				break
			}
			d.rect(x+12, y, boxWidth-24, podHeight, "pod")
			d.text(x+18, y+13, 11, room-12, "dark", "%s", p.Name)
			d.text(x+18, y+26, 10.5, room-12, "dark", "%s", p.Addr)
			d.text(x+18, y+39, 9.5, room-12, "dim", "%s", p.Shared)
			y += podHeight + 6
		}
	}
	y += 4
	d.shapes[box].h = y - top
	return y
}

// services draws a table of them, in columns, and returns where it ends.
func (d *drawing) services(all []Service, y float64, columns int) float64 {
	if len(all) == 0 {
		return y
	}
	wide := max(1, columns/2)
	width := (d.width-2*margin+boxGap)/float64(wide) - boxGap
	for len(all) > 0 {
		n, end := min(wide, len(all)), y
		for i, s := range all[:n] {
			end = max(end, d.service(s, margin+float64(i)*(width+boxGap), y, width))
		}
		all, y = all[n:], end+12
	}
	return y
}

func (d *drawing) service(s Service, x, y, width float64) float64 {
	const shown = 5
	box, top := len(d.shapes), y
	d.rect(x, y, width, 0, "service")
	y += headLine + 2
	d.text(x+10, y, 12.5, width-20, "strong", "%s  %s  (%s)", s.Name, s.At, s.Mode)
	lines := s.Endpoints
	if len(lines) == 0 {
		lines = []string{"no endpoint: refused"}
	}
	for i, e := range lines {
		y += headLine - 1
		if i == shown-1 && len(lines) > shown {
			d.text(x+10, y, 11, width-20, "dim", "and %d endpoints more", len(lines)-i)
			break
		}
		d.text(x+10, y, 11, width-20, "dark", "→ %s", e)
	}
	y += 8
	d.shapes[box].h = y - top
	return y
}

// SPDX-License-Identifier: Apache-2.0

// Package story tells the article's story in a lab: it shows what each host shows, and claims nothing unchecked.
package story

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

const (
	textWidth   = 78
	outputWidth = 100
)

// Options say where the story goes and how it looks.
type Options struct {
	Out   io.Writer
	Color bool
}

// Tell tells the whole story in the lab, which must just have come up. The first claim that does not hold ends it with
// an error; a description of the lab at that moment is then in the file that the error names.
func Tell(l *lab.Lab, o Options) (err error) {
	t := &teller{lab: l, out: o.Out, color: o.Color, start: time.Now()}
	defer func() { err = t.rescue(recover(), err) }()
	t.title()
	for i, c := range []struct {
		title string
		tell  func(*teller)
	}{
		{"The lab", (*teller).theLab},
		{"BGP in place of static routes", (*teller).theRoutes},
		{"A pod", (*teller).thePod},
		{"Ports of the node", (*teller).theHostPorts},
		{"A service, as in 2015", (*teller).theProxy},
		{"The same service, in the kernel", (*teller).theKernel},
		{"A routed stops, a node goes", (*teller).theFailures},
	} {
		t.printf("\n%s\n", t.bold(fmt.Sprintf("%d. %s", i+1, c.title)))
		c.tell(t)
	}
	t.printf("\n%s\n", t.green(fmt.Sprintf("All %d claims were checked, and hold: %.1f s.", t.claims, time.Since(t.start).Seconds())))
	return nil
}

// wrong is what a claim that does not hold panics with, so that chapters read as a story; Tell turns it into an error.
type wrong struct{ error }

type teller struct {
	lab    *lab.Lab
	out    io.Writer
	color  bool
	start  time.Time
	claims int

	web []*lab.Pod // the four backends, once they are there
}

// rescue turns what was recovered from a story into its error.
func (t *teller) rescue(recovered any, err error) error {
	switch r := recovered.(type) {
	case nil:
		return err
	case wrong:
		return t.report(r.error)
	}
	panic(recovered)
}

func (t *teller) report(cause error) error {
	f, err := os.CreateTemp("", "l3edge-demo-*.txt")
	if err != nil {
		return cause
	}
	t.lab.Dump(f)
	return fmt.Errorf("%w\nthe lab at that moment is described in %s", cause, f.Name())
}

func (t *teller) printf(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

func (t *teller) paint(code, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *teller) bold(s string) string  { return t.paint("1", s) }
func (t *teller) green(s string) string { return t.paint("32", s) }

// say prints prose, wrapped.
func (t *teller) say(text string) {
	t.printf("\n")
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > textWidth {
			t.printf("%s\n", line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	t.printf("%s\n\n", line)
}

// must ends the story on an error of its own machinery.
func (t *teller) must(err error) {
	if err != nil {
		panic(wrong{err})
	}
}

// check makes a claim; err says why it does not hold.
func (t *teller) check(claim string, err error) {
	t.claims++
	if err != nil {
		t.printf("  %s %s\n", t.paint("31", "✗"), claim)
		panic(wrong{fmt.Errorf("not so: %s: %w", claim, err)})
	}
	t.printf("  %s %s\n", t.green("✓"), claim)
}

// that is an error unless the claim holds.
func that(holds bool, format string, args ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// run shows a command at a host's or pod's prompt, runs it there, shows what it says, and returns that. What follows
// the command is not run: a remark.
func (t *teller) run(p *place.Place, command string, remark ...string) string {
	out, err := p.Run("sh", "-c", command)
	t.prompt(p, strings.Join(append([]string{command}, remark...), "   # "))
	t.output(out)
	t.must(err)
	return out
}

func (t *teller) prompt(p *place.Place, command string) {
	t.printf("%s%s\n", t.paint("36", "["+p.Name+"]# "), t.bold(command))
}

func (t *teller) output(out string) {
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if r := []rune(line); len(r) > outputWidth {
			line = string(r[:outputWidth-1]) + "…"
		}
		t.printf("%s\n", line)
	}
}

// request is how a person would ask for the page at addr: with curl, where it is installed.
func (t *teller) request(addr string) string {
	if _, err := exec.LookPath("curl"); err != nil {
		return "(no curl here) GET http://" + addr + "/"
	}
	return "curl -s " + strings.TrimSuffix(addr, ":80")
}

// ask asks that way.
func (t *teller) ask(p *place.Place, addr string) (a place.Answer, text string, err error) {
	if _, e := exec.LookPath("curl"); e == nil {
		text, err = p.Run("curl", "-s", "-m", "2", addr)
	} else {
		text, err = p.Get(addr, "/")
	}
	if err == nil {
		a, err = place.ParseAnswer(text)
	}
	return a, text, err
}

// fetch asks, and shows both the question and the answer.
func (t *teller) fetch(p *place.Place, addr string) place.Answer {
	a, text, err := t.ask(p, addr)
	t.prompt(p, t.request(addr))
	t.output(text)
	t.must(err)
	return a
}

// bars shows how often each of the names was counted.
func (t *teller) bars(names []string, count map[string]int) {
	for _, name := range names {
		t.printf("  %-11s %3d %s\n", name, count[name], t.green(strings.Repeat("▇", count[name])))
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// typed is one command of a page, where it is typed, and the lines that it is shown to answer.
type typed struct {
	page, at, command string
	status            string // "0" or what "# status N" says
	answers           []string
}

var prompt = regexp.MustCompile(`^\[([^]]+)\]# (.*)$`)

// console takes the commands out of a page's console blocks.
func console(t *testing.T, page string) []typed {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	var out []typed
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch m := prompt.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case m != nil:
			c := typed{page: page, at: m[1], command: m[2], status: "0"}
			if _, s, ok := strings.Cut(m[2], "# status "); ok {
				c.status = s
			}
			out = append(out, c)
		case len(out) > 0:
			out[len(out)-1].answers = append(out[len(out)-1].answers, line)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return out
}

var blanks = regexp.MustCompile(`[ \t]+`)

// says reports that a line of out is as shown: blanks do not count, and "..." is anything.
func says(out, shown string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(blanks.ReplaceAllString(shown, " "))), `\.\.\.`, `.*`)
	re := regexp.MustCompile(pattern)
	for line := range strings.Lines(out) {
		if re.MatchString(strings.TrimSpace(blanks.ReplaceAllString(line, " "))) {
			return true
		}
	}
	return false
}

// Every command of the pages does what they say.
func TestPagesAreTrue(t *testing.T) {
	l := labtest.Up(t, lab.Embedded)
	must(t, l.StartEverything())
	for _, h := range l.Nodes() {
		labtest.Within(t, 10*time.Second, h.Name, func() error { _, err := h.Run("l3ctl", "status"); return err })
	}
	for _, page := range []string{"tutorial.md", "explanation.md", "troubleshooting.md", "how-to.md"} {
		for _, c := range console(t, page) {
			runTyped(t, l, c)
		}
	}
}

func runTyped(t *testing.T, l *lab.Lab, c typed) {
	t.Helper()
	host, pod, inPod := strings.Cut(c.at, "/")
	var p *place.Place
	switch h := l.Hosts[host]; {
	case host == l.MLS.Name:
		p = l.MLS.Place
	case h == nil:
		t.Fatalf("%s: no host is called %s", c.page, host)
	case inPod:
		p = h.PodNamed(pod).Place
	default:
		p = h.Place
	}
	out, status := sh(t, p, c.command)
	if status != c.status {
		t.Errorf("%s: %s: status %s, want %s\n%s", c.page, c.command, status, c.status, out)
	}
	for _, a := range c.answers {
		if !says(out, a) {
			t.Errorf("%s: %s: does not say %q but\n%s", c.page, c.command, a, out)
		}
	}
}

// sh runs a line there and returns what it prints and its exit status.
func sh(t *testing.T, p *place.Place, line string) (out, status string) {
	t.Helper()
	out, err := p.Run("sh", "-c", line)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out + err.Error(), strconv.Itoa(exit.ExitCode())
	}
	must(t, err)
	return out, "0"
}

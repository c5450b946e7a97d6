// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
)

// Problem is one thing wrong with a manifest, and where. Line counts from 1; 0 means the file as a whole.
type Problem struct {
	File string
	Line int
	What string
}

// Error is file:line: what, as compilers print it.
func (p Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.What
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.What)
}

// read takes in the document's text.
func (d *doc) read(text []byte) {
	pieces := []document{{text, 0}}
	if bytes.TrimLeft(text, " \t\r\n")[0] == '{' {
		pieces = d.objectsIn(text)
	}
	for _, one := range pieces {
		p := parser{doc: d, text: one.text, line: one.line}
		p.document(one.text)
	}
}

type parser struct {
	doc  *doc
	text []byte // the whole document, or one object of it
	line int    // how many lines of the document stand before it
}

// meta is what tells objects apart.
type meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// document takes one document, or one item of a list, in YAML or JSON.
func (p *parser) document(text []byte) {
	quick := text
	if bytes.TrimLeft(text, " \t\r\n")[0] != '{' {
		quick, _ = plain(text)
	}
	var m meta
	if quick == nil || json.Unmarshal(quick, &m) != nil {
		quick, m = nil, meta{}
		if err := yaml.Unmarshal(text, &m); err != nil {
			p.fail("", err)
			return
		}
		if line, err := trailing(text); err != nil {
			p.broken(Problem{Line: line, What: err.Error()})
		}
	}
	name := strings.Join([]string{m.Kind, orDefault(m.Metadata.Namespace), m.Metadata.Name}, "/")
	switch gvk := m.APIVersion + " " + m.Kind; {
	case gvk == "v1 Service":
		p.service(name, text, quick)
	case gvk == "discovery.k8s.io/v1 EndpointSlice":
		p.endpointSlice(name, text, quick)
	case gvk == "v1 Endpoints":
		p.endpoints(name, text, quick)
	case strings.HasSuffix(m.Kind, "List"):
		for _, item := range m.Items {
			p.item(strings.TrimSuffix(m.Kind, "List"), m.APIVersion, item)
		}
	case m.Kind == "" && len(bytes.TrimSpace(stripComments(text))) == 0:
	case m.Kind == "" || m.APIVersion == "":
		p.broken(p.at("", "apiVersion and kind are missing"))
	default:
		p.note(p.at("kind", fmt.Sprintf("%s %s is not a kind that a portal knows; skipped", m.APIVersion, m.Kind)))
	}
}

func (p *parser) broken(what Problem) {
	what.Line += p.line
	p.doc.broken = append(p.doc.broken, what)
}

func (p *parser) note(what Problem) {
	what.Line += p.line
	p.doc.notes = append(p.doc.notes, what)
}

// item is a list's element. Elements of typed lists (ServiceList) need not repeat their kind.
func (p *parser) item(kind, apiVersion string, raw []byte) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(raw, &meta); err == nil && meta.Kind == "" && kind != "" {
		raw = bytes.Replace(raw, []byte("{"), fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,`, apiVersion, kind), 1)
	}
	p.document(raw)
}

func (p *parser) service(name string, text, quick []byte) {
	var o v1.Service
	if !p.decode(name, text, quick, &o) {
		return
	}
	svc, ok, err := kubeobj.Service(&o)
	switch {
	case err != nil:
		p.fail(name, err)
	case ok:
		if err := kubeobj.Unheeded(&o); err != nil {
			path, what := place(err.Error())
			p.note(p.at(path, name+": "+what))
		}
		p.put(name, kubeobj.Object{Service: &svc})
	}
}

func (p *parser) endpointSlice(name string, text, quick []byte) {
	var o discovery.EndpointSlice
	if !p.decode(name, text, quick, &o) {
		return
	}
	s, ok, err := kubeobj.EndpointSlice(&o)
	switch {
	case err != nil:
		p.fail(name, err)
	case ok:
		p.put(name, kubeobj.Object{Slices: []kubeobj.Slice{s}})
	case o.Labels[discovery.LabelServiceName] == "":
		p.note(p.at("metadata", name+": no label "+discovery.LabelServiceName+", so it belongs to no Service"))
	}
}

func (p *parser) endpoints(name string, text, quick []byte) {
	var o v1.Endpoints
	if !p.decode(name, text, quick, &o) {
		return
	}
	s, err := kubeobj.Endpoints(&o)
	if err != nil {
		p.fail(name, err)
		return
	}
	p.put(name, kubeobj.Object{Slices: s})
}

// decoder reads one value after the other, so that many documents share its buffer. After an error it is of no use.
type decoder struct {
	bytes.Reader
	*json.Decoder
}

var decoders = sync.Pool{New: func() any {
	d := &decoder{}
	d.Decoder = json.NewDecoder(&d.Reader)
	d.DisallowUnknownFields()
	return d
}}

// decode is strict: a key that Kubernetes does not know is a mistake, as it is for kubectl. What is not right in the quick
// way is read again in the long one, which knows what to say of it.
func (p *parser) decode(name string, text, quick []byte, into any) bool {
	if quick != nil {
		d := decoders.Get().(*decoder) //nolint:forcetypeassert // nothing else is in it
		d.Reset(quick)
		if d.Decode(into) == nil {
			decoders.Put(d)
			return true
		}
		v := reflect.ValueOf(into).Elem()
		v.SetZero()
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		p.fail(name, err)
		return false
	}
	return true
}

func (p *parser) put(name string, o kubeobj.Object) {
	p.doc.objects = append(p.doc.objects, placed{name, p.line + p.metadata(), o})
}

// metadata is the line where an object says its name, found without reading all of a document that begins at its own edge.
func (p *parser) metadata() int {
	if at := bytes.Index(p.text, []byte("\nmetadata:")); at >= 0 {
		return bytes.Count(p.text[:at], []byte("\n")) + 2
	}
	if at := bytes.Index(p.text, []byte(`"metadata"`)); at >= 0 && p.text[0] == '{' {
		return bytes.Count(p.text[:at], []byte("\n")) + 1
	}
	return lineOf(p.text, "metadata")
}

// fail reports a joined error as one problem for each of its parts.
func (p *parser) fail(object string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.fail(object, e)
		}
		return
	}
	if joined := errors.Unwrap(err); joined != nil {
		if _, ok := joined.(interface{ Unwrap() []error }); ok {
			p.fail(object, joined)
			return
		}
	}
	path, what := place(err.Error())
	if object != "" {
		what = object + ": " + what
	}
	prob := p.at(path, what)
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		prob.Line = n
	}
	p.broken(prob)
}

func (p *parser) at(path, what string) Problem {
	return Problem{Line: lineOf(p.text, path), What: what}
}

func orDefault(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}

func stripComments(text []byte) []byte { return comment.ReplaceAll(text, nil) }

var comment = regexp.MustCompile(`(?m)^\s*#.*$`)

// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/service"
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

// object is what one document holds for us; exactly one field is set.
type object struct {
	service *service.Service
	slices  []kubeobj.Slice
}

// manifest is one file's content: objects by kind, namespace and name, in the order of the file.
type manifest struct {
	keys    []string
	objects map[string]object
	lines   map[string]int
}

// parse reads a stream of YAML or JSON documents. What is right is returned even if other documents are not.
// Kinds that are not ours are problems too (notes): the document is skipped, the rest counts.
func parse(name string, data []byte) (m manifest, broken, notes []Problem) {
	m = manifest{objects: map[string]object{}, lines: map[string]int{}}
	for _, doc := range split(data) {
		p := parser{file: name, doc: doc, m: &m}
		p.document(doc.text)
		broken, notes = append(broken, p.broken...), append(notes, p.notes...)
	}
	return m, broken, notes
}

// document is a part of a file: its text and the number of the line before its first.
type document struct {
	text []byte
	line int
}

var separator = regexp.MustCompile(`(?m)^---(?:[ \t].*)?\r?$\n?`)

// split cuts a YAML stream at its "---" lines.
func split(data []byte) []document {
	var out []document
	line := 0
	add := func(text []byte) {
		if len(bytes.TrimSpace(text)) > 0 {
			out = append(out, document{text, line})
		}
		line += bytes.Count(text, []byte("\n"))
	}
	for {
		at := separator.FindIndex(data)
		if at == nil {
			break
		}
		add(data[:at[0]])
		line += bytes.Count(data[at[0]:at[1]], []byte("\n"))
		data = data[at[1]:]
	}
	add(data)
	return out
}

type parser struct {
	file          string
	doc           document
	m             *manifest
	broken, notes []Problem
}

// document takes one document, or one item of a list, in YAML or JSON.
func (p *parser) document(text []byte) {
	var meta struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Items             []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(text, &meta); err != nil {
		p.fail("", err)
		return
	}
	name := strings.Join([]string{meta.Kind, orDefault(meta.Namespace), meta.Name}, "/")
	switch gvk := meta.APIVersion + " " + meta.Kind; {
	case gvk == "v1 Service":
		p.service(name, text)
	case gvk == "discovery.k8s.io/v1 EndpointSlice":
		p.endpointSlice(name, text)
	case gvk == "v1 Endpoints":
		p.endpoints(name, text)
	case strings.HasSuffix(meta.Kind, "List"):
		for _, item := range meta.Items {
			p.item(strings.TrimSuffix(meta.Kind, "List"), meta.APIVersion, item.Raw)
		}
	case meta.Kind == "" && len(bytes.TrimSpace(stripComments(text))) == 0:
	case meta.Kind == "" || meta.APIVersion == "":
		p.broken = append(p.broken, p.at("", "apiVersion and kind are missing"))
	default:
		p.notes = append(p.notes, p.at("kind", fmt.Sprintf("%s %s is not a kind that a portal knows; skipped", meta.APIVersion, meta.Kind)))
	}
}

// item is a list's element. Elements of typed lists (ServiceList) need not repeat their kind.
func (p *parser) item(kind, apiVersion string, raw []byte) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(raw, &meta); err == nil && meta.Kind == "" && kind != "" {
		raw = bytes.Replace(raw, []byte("{"), fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,`, apiVersion, kind), 1)
	}
	p.document(raw)
}

func (p *parser) service(name string, text []byte) {
	var o v1.Service
	if !p.decode(name, text, &o) {
		return
	}
	svc, ok, err := kubeobj.Service(&o)
	switch {
	case err != nil:
		p.fail(name, err)
	case ok:
		p.put(name, object{service: &svc})
	}
}

func (p *parser) endpointSlice(name string, text []byte) {
	var o discovery.EndpointSlice
	if !p.decode(name, text, &o) {
		return
	}
	s, ok, err := kubeobj.EndpointSlice(&o)
	switch {
	case err != nil:
		p.fail(name, err)
	case ok:
		p.put(name, object{slices: []kubeobj.Slice{s}})
	case o.Labels[discovery.LabelServiceName] == "":
		p.notes = append(p.notes, p.at("metadata", name+": no label "+discovery.LabelServiceName+", so it belongs to no Service"))
	}
}

func (p *parser) endpoints(name string, text []byte) {
	var o v1.Endpoints
	if !p.decode(name, text, &o) {
		return
	}
	s, err := kubeobj.Endpoints(&o)
	if err != nil {
		p.fail(name, err)
		return
	}
	p.put(name, object{slices: s})
}

// decode is strict: a key that Kubernetes does not know is a mistake, as it is for kubectl.
func (p *parser) decode(name string, text []byte, into any) bool {
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		p.fail(name, err)
		return false
	}
	return true
}

func (p *parser) put(name string, o object) {
	if _, dup := p.m.objects[name]; dup {
		p.broken = append(p.broken, p.at("metadata", fmt.Sprintf("%s is also at line %d; that one counts", name, p.m.lines[name])))
		return
	}
	p.m.keys = append(p.m.keys, name)
	p.m.objects[name] = o
	p.m.lines[name] = p.at("metadata", "").Line
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
		prob.Line = p.doc.line + n
	}
	p.broken = append(p.broken, prob)
}

func (p *parser) at(path, what string) Problem {
	return Problem{File: p.file, Line: p.doc.line + lineOf(p.doc.text, path), What: what}
}

func orDefault(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}

func stripComments(text []byte) []byte { return comment.ReplaceAll(text, nil) }

var comment = regexp.MustCompile(`(?m)^\s*#.*$`)

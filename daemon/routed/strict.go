// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// readYAML sets what into points to, a struct with json tags. It tells of every key that there is not and of every value
// that does not fit, each with its place; what fits is set all the same. broken says that the text is no YAML at all.
func readYAML(data []byte, into any) (wrong []error, broken error) {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var p problems
	p.set("", rawjson.Value(text), reflect.ValueOf(into).Elem())
	return p.errs, nil
}

// set puts one value where it belongs.
func (p *problems) set(place string, v rawjson.Value, into reflect.Value) {
	if v.IsNull() {
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		p.setStruct(place, v, into)
	case reflect.Slice:
		list, err := v.Array()
		if err != nil {
			p.add(place, fmt.Errorf("%s is not a list", short(v)))
			return
		}
		into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
		for i, x := range list {
			p.set(fmt.Sprintf("%s[%d]", place, i), x, into.Index(i))
		}
	case reflect.Map:
		o, err := v.Object()
		if err != nil {
			p.add(place, fmt.Errorf("%s is not a set of names", short(v)))
			return
		}
		into.Set(reflect.MakeMap(into.Type()))
		for _, name := range names(o) {
			x := reflect.New(into.Type().Elem()).Elem()
			p.set(place+"."+name, o[name], x)
			into.SetMapIndex(reflect.ValueOf(name), x)
		}
	case reflect.String:
		if v[0] != '"' && v[0] != '{' && v[0] != '[' { // YAML takes 7 or on for something else than a text
			into.SetString(string(v))
			return
		}
		p.add(place, v.Decode(into.Addr().Interface()))
	default:
		p.add(place, v.Decode(into.Addr().Interface()))
	}
}

func (p *problems) setStruct(place string, v rawjson.Value, into reflect.Value) {
	o, err := v.Object()
	if err != nil {
		p.add(cmp.Or(place, "the file"), fmt.Errorf("%s is not a set of keys", short(v)))
		return
	}
	if place != "" {
		place += "."
	}
	fields := fieldsOf(into)
	if err := o.Unknown(place, fields, nil); err != nil { // several, joined
		p.errs = append(p.errs, err.(interface{ Unwrap() []error }).Unwrap()...)
	}
	for _, f := range fields {
		p.set(place+f.Key, o.Get(f.Key), f.Into.(reflect.Value))
	}
}

// fieldsOf are the keys of a struct, those of embedded ones among them.
func fieldsOf(s reflect.Value) (out []rawjson.Field) {
	for i := range s.NumField() {
		f := s.Type().Field(i)
		if f.Anonymous {
			out = append(out, fieldsOf(s.Field(i))...)
		} else {
			out = append(out, rawjson.Field{Key: f.Tag.Get("json"), Into: s.Field(i)})
		}
	}
	return out
}

func names(o rawjson.Object) (out []string) {
	for name := range o {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func short(v rawjson.Value) string {
	const most = 40
	if len(v) > most {
		return string(v[:most]) + "..."
	}
	return string(v)
}

// readFile reads the configuration file. wrong is what does not fit in it; the rest is in r. Nothing is when it cannot be
// read at all.
func readFile(path string) (r raw, wrong []error, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return raw{}, nil, fmt.Errorf("read configuration: %w", err)
	}
	wrong, err = readYAML(data, &r)
	if err != nil {
		return raw{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range wrong {
		wrong[i] = fmt.Errorf("%s: %w", path, wrong[i])
	}
	return r, wrong, nil
}

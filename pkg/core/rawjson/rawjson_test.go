// SPDX-License-Identifier: Apache-2.0

package rawjson

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decode turns a value into what encoding/json makes of it, by way of this package as far as it goes.
func decode(t testing.TB, v Value) any {
	t.Helper()
	if len(v) > 0 && v[0] == '{' {
		o, err := v.Object()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		for k, v := range o {
			out[k] = decode(t, v)
		}
		return out
	}
	if len(v) > 0 && v[0] == '[' {
		a, err := v.Array()
		if err != nil {
			t.Fatal(err)
		}
		out := []any{}
		for _, v := range a {
			out = append(out, decode(t, v))
		}
		return out
	}
	if len(v) > 0 && v[0] == '"' {
		var s string
		if err := v.Decode(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	var x any
	if err := v.Decode(&x); err != nil {
		t.Fatal(err)
	}
	return x
}

func FuzzItReadsWhatEncodingJSONReads(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, "{\n \"a\" : [ ] ,\"b\":[ 1 , \"x,y\" ,{\"c\":null}]\t}", `{"a":"\"}","b\u0041":"\\"}`, `{"a":1,"a":2}`,
		`{"cniVersion":"1.0.0","ipam":{"ranges":[[{"subnet":"10.0.0.0/8"}]]},"x":-1.5e3,"y":true}`, `null`, `[]`, `{"a":}`, ``, "{\"a\":\"\xff\"}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want any
		werr := json.Unmarshal([]byte(s), &want)
		o, err := ParseObject([]byte(s))
		_, isObject := want.(map[string]any)
		if !isObject && want != nil && werr == nil {
			if err == nil {
				t.Fatalf("%q is no object, but accepted", s)
			}
			return
		}
		if (err == nil) != (werr == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", s, err, werr)
		}
		if err != nil || want == nil {
			return
		}
		got := map[string]any{}
		for k, v := range o {
			got[k] = decode(t, v)
		}
		if diff := cmp.Diff(want, any(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	})
}

func TestDecode(t *testing.T) {
	o, err := ParseObject([]byte(`{"s":"a\n","b":true,"n":42,"list":["x"],"wrong":"7","Fold":1,"nothing":null}`))
	if err != nil {
		t.Fatal(err)
	}
	var s, untouched string = "", "before"
	var b bool
	var p *bool
	var n, fold int
	var list []string
	for name, into := range map[string]any{"s": &s, "b": &b, "n": &n, "list": &list, "fOLD": &fold, "nothing": &untouched, "missing": &untouched} {
		if err := o.Get(name).Decode(into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := o.Get("b").Decode(&p); err != nil || p == nil || !*p {
		t.Errorf("pointer: %v, %v", p, err)
	}
	if s != "a\n" || !b || n != 42 || fold != 1 || len(list) != 1 || untouched != "before" {
		t.Errorf("got %q %t %d %d %v %q", s, b, n, fold, list, untouched)
	}
	for name, into := range map[string]any{"wrong": &n, "s": &b, "b": &s, "list": &n} {
		if err := o.Get(name).Decode(into); err == nil {
			t.Errorf("%s was accepted as %T", name, into)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("a\"b\\c\x00<é\xff")
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(AppendString(nil, s)); got != string(want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	})
}

func TestMisfitsAreNamedInPlainWordsWithTheirPlaces(t *testing.T) {
	o, err := ParseObject([]byte(`{"n":"7","b":1,"s":[1],"l":"x","float":1.5,"fits":3,"long":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`))
	if err != nil {
		t.Fatal(err)
	}
	var n, float, fits, long int
	var b bool
	var s string
	var l []string
	err = o.Read("ipam.", []Field{{"n", &n}, {"b", &b}, {"s", &s}, {"l", &l}, {"float", &float}, {"fits", &fits}, {"long", &long}})
	want := `ipam.n: "7" is not a number
ipam.b: 1 is not true or false
ipam.s: [1] is not a text
ipam.l: "x" is not a list of texts
ipam.float: 1.5 is not a number
ipam.long: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... is not a number`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if fits != 3 {
		t.Error("what fits is not read beside what does not")
	}
	for text, want := range map[string]string{`5`: "5 is not an object", `"x"`: `"x" is not an object`} {
		if _, err := Value(text).Object(); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := Value(`{"a":1}`).Array(); err == nil || err.Error() != `{"a":1} is not a list` {
		t.Errorf("list: %v", err)
	}
}

func TestUnknownKeysAndWhatWasMeant(t *testing.T) {
	o, err := ParseObject([]byte(`{"isGatway":1,"brigde":1,"BRIDGE":1,"nothingLikeIt":1,"_note":1,"ipams":1}`))
	if err != nil {
		t.Fatal(err)
	}
	fields := []Field{{"bridge", nil}, {"isGateway", nil}, {"ipam", nil}, {"isDefaultGateway", nil}}
	err = o.Unknown("x.", fields, func(key string) bool { return key[0] == '_' })
	want := `x.brigde: there is no such key; did you mean bridge?
x.ipams: there is no such key; did you mean ipam?
x.isGatway: there is no such key; did you mean isGateway?
x.nothingLikeIt: there is no such key`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

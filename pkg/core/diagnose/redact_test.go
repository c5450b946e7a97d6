// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"password: hunter2":                                       "password: (removed)",
		"password: hunter2 of the north # x\nnode: a":             "password: (removed) # x\nnode: a",
		`{"token":"ey.J0","node":"a"}`:                            `{"token":(removed),"node":"a"}`,
		`{"password":"a\"b c","node":"a"}`:                        `{"password":(removed),"node":"a"}`,
		`  "etcd_secret_key": "abc",`:                             `  "etcd_secret_key": (removed),`,
		" neighbor X password hunter2":                            " neighbor X password (removed)",
		"clientSecret = \"a b\" # x":                              "clientSecret = (removed) # x",
		"level=INFO msg=x password=abc peer=mls":                  "level=INFO msg=x password=(removed) peer=mls",
		"    client-key-data: LS0tLS1CRUdJTg==":                   "    client-key-data: (removed)",
		"token: |\n  one\n\n  two\nnode: a\n":                     "token: | (removed)\nnode: a\n",
		"- secret:\n    hunter2\n- name: a\n":                     "- secret: (removed)\n- name: a\n",
		"Authorization: Bearer eyJhbGciOi":                        "Authorization: (removed)",
		"sent header Bearer eyJhbGciOi.x-y to":                    "sent header Bearer (removed) to",
		"server: https://me:pw@10.0.0.1:6443/x":                   "server: https://me:(removed)@10.0.0.1:6443/x",
		"passwordFile: /etc/l3edge/md5":                           "passwordFile: /etc/l3edge/md5",
		"--peer=mls,password-file=/etc/md5":                       "--peer=mls,password-file=/etc/md5",
		"10.10.10.0/24 via 10.20.30.1 metric 1":                   "10.10.10.0/24 via 10.20.30.1 metric 1",
		"a\r\nb\r\n":                                              "a\r\nb\r\n",
		"-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC P":      "-----BEGIN EC PRIVATE KEY-----(removed)-----END EC P",
		"the basic idea of tokens\nsession up: https://10.0.0.1/": "the basic idea of tokens\nsession up: https://10.0.0.1/",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// Whatever a secret looks like, and however it is written, it is not in the bundle.
func FuzzRedact(f *testing.F) {
	f.Add("hunter2", "x: 1")
	f.Add("-----BEGIN", "\n- a: |\n  b")
	f.Fuzz(func(t *testing.T, secret, more string) {
		if len(secret) < 6 || strings.ContainsAny(secret, "\"'\\ \t\r\n#()") || strings.Contains("password: (removed)"+more, secret) {
			return
		}
		for _, text := range []string{"password: " + secret + "\n", `{"token":"` + secret + `"}`, "apiKey=" + secret + "\n", "md5 " + secret} {
			if got := Redact(text + more); strings.Contains(got, secret) {
				t.Errorf("%q becomes %q", text+more, got)
			}
		}
	})
}

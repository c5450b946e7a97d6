// SPDX-License-Identifier: Apache-2.0

package diagnose

import "testing"

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"password: hunter2":                     "password: (removed)",
		`{"token":"ey.J0","node":"a"}`:          `{"token":(removed),"node":"a"}`,
		" neighbor X password hunter2":          " neighbor X password (removed)",
		"clientSecret = \"a b\" # x":            "clientSecret = (removed) # x",
		"passwordFile: /etc/l3edge/md5":         "passwordFile: /etc/l3edge/md5",
		"--peer=mls,password-file=/etc/md5":     "--peer=mls,password-file=/etc/md5",
		"10.10.10.0/24 via 10.20.30.1 metric 1": "10.10.10.0/24 via 10.20.30.1 metric 1",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// A real FRR and a real BIRD with nothing but the output of l3ctl mls-config come up with our nodes, let in what they
// shall and nothing else, use all ways to the portal net, and mls-verify agrees.
func TestMLSConfigComesUp(t *testing.T) {
	for _, kind := range []lab.Kind{lab.FRR, lab.BIRD} {
		t.Run(string(kind), func(t *testing.T) {
			l := labtest.Bare(t, kind)
			must(t, l.MLS.Host.WriteFile("/etc/md5", "s3cret\n"))
			conf := wants(t, l.MLS.Place, 0, "mls-config --vendor="+string(kind)+" --segment=10.20.30.1/24 --segment=192.168.10.1/24 --cluster=10.10.0.0/16 --portal-net=10.100.0.0/16 --max-prefixes=2 --password-file=/etc/md5")
			must(t, l.MLS.Configure(conf))
			for _, h := range l.Nodes() {
				must(t, h.WriteFile("/etc/md5", "s3cret\n"))
				must(t, chmod(h, "/etc/md5"))
				var err error
				h.Routed, err = h.Start("routed", "routed", "--peer=mls,password-file=/etc/md5", "--announce-portal-net")
				must(t, err)
				must(t, h.StartPortald())
			}
			must(t, place.Eventually(15*time.Second, l.Converged))
			_, err := l.AddWebPods()
			must(t, err)
			labtest.Within(t, 10*time.Second, "all ways to the portal net", func() error {
				out, err := l.MLS.Run("ip", "-4", "route", "show", "10.100.0.0/16")
				if err == nil && strings.Count(out, "via ") != 4 {
					err = errors.New(out)
				}
				return err
			})
			labtest.Within(t, 20*time.Second, "a service reached from outside", func() error { return l.Hosts["outside"].Reaches(vip) })
			wants(t, l.Hosts["kubminion1"].Place, 0, "mls-verify --lab", "4 nodes agree with the switch")
			run(t, l.MLS.Place, "ip", "route", "add", "10.10.10.0/24", "via", "10.20.30.62", "proto", "static")
			wants(t, l.MLS.Place, 2, "mls-verify --lab", "a static route is left: 10.10.10.0/24 via 10.20.30.62")
		})
	}
}

func chmod(h *lab.Host, path string) error {
	_, err := h.Run("chmod", "600", path)
	return err
}

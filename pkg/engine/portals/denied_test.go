// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"errors"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

func TestWhatTheKernelRefusesIsToldAndTheRestIsInForce(t *testing.T) {
	r := newRig(NFTables, nil)
	r.kernel.fail = portal.NotProgrammed{service.Name{Namespace: "default", Name: "web"}: errors.New("file table overflow")}
	r.SetSnapshot(services("web 10.100.0.5", "db 10.100.0.6"), nil)
	for range 2 {
		r.sync(t)
		rep := r.Report()
		if len(rep.Portals) != 1 || rep.Portals[0].Service != "default/db" || !rep.Synced {
			t.Errorf("in force: %+v", rep)
		}
		if len(rep.Problems) != 1 || rep.Problems[0] != "service default/web: the kernel refuses it: file table overflow" {
			t.Errorf("problems: %v", rep.Problems)
		}
	}
	if n := strings.Count(r.said(), "the kernel refuses it"); n != 1 {
		t.Errorf("said %d times", n)
	}
	r.kernel.fail = nil
	r.sync(t)
	if rep := r.Report(); len(rep.Portals) != 2 || len(rep.Problems) != 0 {
		t.Errorf("in force at last: %+v", rep)
	}
}

// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"errors"
	"fmt"
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

func TestThousandsOfProblemsDrownNobody(t *testing.T) {
	r := newRig(NFTables, nil)
	s := services("thief 10.100.0.6", "db 10.100.0.5")
	thief := service.Name{Namespace: "default", Name: "thief"}
	svc := s.Services[thief]
	svc.ExternalIPs, svc.Ports = s.Services[service.Name{Namespace: "default", Name: "db"}].ClusterIPs, nil
	db := s.Services[service.Name{Namespace: "default", Name: "db"}]
	db.Ports = nil
	for i := range 1000 {
		p := service.Port{Name: fmt.Sprint("p", i), Protocol: service.TCP, Port: uint16(1 + i)}
		svc.Ports, db.Ports = append(svc.Ports, p), append(db.Ports, p)
	}
	s.Services[thief], s.Services[db.Name] = svc, db
	var source []error
	for i := range 1000 {
		source = append(source, fmt.Errorf("web.yaml:%d: no", i))
	}
	r.SetSnapshot(s, errors.Join(source...))
	r.sync(t)
	if log := r.said(); strings.Count(log, "\n") > 2*chatter || !strings.Contains(log, "too many to list") {
		t.Errorf("%d lines", strings.Count(log, "\n"))
	}
	if n := len(r.Report().Problems); n != 1000+perService+1 {
		t.Errorf("%d problems", n)
	}
}

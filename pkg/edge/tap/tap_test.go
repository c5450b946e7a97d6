// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/frame"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestTapSeesADatagram(t *testing.T) {
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
	var tap *Tap
	nstest.Do(t, a, func() (err error) { tap, err = Open("eth0"); return err })
	defer tap.Close() //nolint:errcheck // the test is over
	start := time.Now()
	nstest.Run(t, a, "bash", "-c", "echo hello > /dev/udp/10.0.0.2/9")
	buf := make([]byte, 44)
	for {
		n, length, at, err := tap.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if time.Since(start) > 5*time.Second {
				t.Fatal("nothing was seen")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p, ok := frame.Parse(buf[:n])
		if !ok || p.Protocol != frame.UDP {
			continue
		}
		if length != 48 || n != 44 || at.Before(start.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) || p.Dst.String() != "10.0.0.2:9" {
			t.Errorf("saw %s, %d of %d bytes, at %s", p, n, length, at)
		}
		break
	}
	if lost, err := tap.Lost(); err != nil || lost != 0 {
		t.Errorf("lost %d %v", lost, err)
	}
	nstest.Do(t, a, func() error {
		if _, err := Open("eth9"); err == nil {
			t.Error("an interface that is not there is tapped")
		}
		return nil
	})
}

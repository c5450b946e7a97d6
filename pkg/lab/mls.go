// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Kind says which router is the multilayer switch.
type Kind string

// The routers that can be the switch.
const (
	Embedded Kind = "embedded" // our own routed, listening
	FRR      Kind = "frr"
	BIRD     Kind = "bird"
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{Embedded, FRR, BIRD} }

// frrPath is where Debian and Red Hat keep FRR's daemons.
const frrPath = "/usr/lib/frr:/usr/libexec/frr"

// check says what is missing on this machine, and how to get it.
func (k Kind) check() error {
	need := map[Kind][]string{Embedded: nil, FRR: {"zebra", "bgpd", "vtysh"}, BIRD: {"bird", "birdc"}}
	programs, ok := need[k]
	if !ok {
		return fmt.Errorf("unknown switch %q: it is one of %v", k, Kinds())
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if slices.ContainsFunc(strings.Split(frrPath, ":"), func(dir string) bool { _, err := os.Stat(dir + "/" + p); return err == nil }) {
			continue
		}
		pkg := map[Kind]string{FRR: "frr", BIRD: "bird2"}[k]
		return fmt.Errorf("the %s switch needs the program %s: apt install %s, or take --mls=%s", k, p, pkg, Embedded)
	}
	return nil
}

// Switch is the multilayer switch.
type Switch struct {
	*Host
	Kind    Kind
	Daemons []*place.Process // in the order of their start
	bare    bool             // see Config
}

// Start starts the switch's routing daemons.
func (s *Switch) Start(t topology.Topology) error {
	var err error
	switch s.Kind {
	case Embedded:
		err = s.daemon("routed", append([]string{"routed"}, t.RoutedArgs()...)...)
	case FRR:
		err = s.startFRR(t)
	case BIRD:
		err = s.startBIRD(t)
	}
	if err != nil {
		return fmt.Errorf("start the %s switch: %w", s.Kind, err)
	}
	return nil
}

func (s *Switch) daemon(log string, command ...string) error {
	p, err := s.Host.Start(log, command[0], command[1:]...)
	if err != nil {
		return err
	}
	s.Daemons = append(s.Daemons, p)
	return nil
}

// confDir is the switch's directory for configurations and sockets: short, for a unix socket's name has 107 bytes.
const confDir = Dir + "/mls"

// startFRR runs zebra and bgpd with all their files in one directory of the user frr: FRR refuses to run as root.
func (s *Switch) startFRR(t topology.Topology) error {
	if err := writeFile(confDir+"/zebra.conf", "hostname "+topology.MLSName+"\n"); err != nil {
		return err
	}
	bgpd := t.FRRConfig()
	if s.bare {
		bgpd = "hostname " + topology.MLSName + "\n"
	}
	if err := writeFile(confDir+"/bgpd.conf", bgpd); err != nil {
		return err
	}
	if err := chownTo("frr", confDir); err != nil {
		return err
	}
	common := func(name string) []string {
		return []string{
			name, "-f", confDir + "/" + name + ".conf", "-i", confDir + "/" + name + ".pid", "-z", confDir + "/zserv.api",
			"--vty_socket", confDir, "-A", "127.0.0.1", "-P", "0", "-u", "frr", "-g", "frr", "--log", "stdout",
		}
	}
	if err := s.daemon("zebra", common("zebra")...); err != nil {
		return err
	}
	if err := s.exists(confDir + "/zserv.api"); err != nil {
		return err
	}
	if err := s.daemon("bgpd", append(common("bgpd"), "-p", "179")...); err != nil || s.bare {
		return errors.Join(err, s.exists(confDir+"/bgpd.vty"))
	}
	return s.listening()
}

func (s *Switch) startBIRD(t topology.Topology) error {
	bird := t.BIRDConfig()
	if s.bare {
		bird = fmt.Sprintf("router id %s;\nprotocol device { }\ninclude \"%s/extra*.conf\";\n", t.Segments[0].Addr.Addr(), confDir)
	}
	if err := writeFile(confDir+"/bird.conf", bird); err != nil {
		return err
	}
	if err := s.daemon("bird", "bird", "-f", "-c", confDir+"/bird.conf", "-s", confDir+"/bird.ctl", "-P", confDir+"/bird.pid"); err != nil {
		return err
	}
	if err := s.exists(confDir + "/bird.ctl"); err != nil || s.bare {
		return err
	}
	return s.listening()
}

// Configure loads a configuration of BGP into a bare switch, as an operator would.
func (s *Switch) Configure(text string) error {
	path := confDir + "/extra.conf"
	if err := writeFile(path, text); err != nil {
		return err
	}
	load := []string{"birdc", "-s", confDir + "/bird.ctl", "configure"}
	if s.Kind == FRR {
		load = []string{"vtysh", "--vty_socket", confDir, "-f", path}
	}
	out, err := s.Run(load[0], load[1:]...)
	if err != nil {
		return fmt.Errorf("configure the %s switch: %w\n%s", s.Kind, err, out)
	}
	return s.listening()
}

// Accept has the embedded switch learn what lies inside one more prefix: it starts anew.
func (s *Switch) Accept(prefix string) error {
	if s.Kind != Embedded {
		return fmt.Errorf("the %s switch learns what its configuration says; take --mls=%s", s.Kind, Embedded)
	}
	if err := s.Daemons[0].Stop(); err != nil {
		return err
	}
	s.Daemons = nil
	return s.daemon("routed", append(append([]string{"routed"}, topology.Article().RoutedArgs()...), "--accept="+prefix)...)
}

// exists waits for a file of the last daemon.
func (s *Switch) exists(path string) error {
	return s.await(func() error { _, err := os.Stat(path); return err })
}

// listening waits until something answers on the BGP port.
func (s *Switch) listening() error {
	return s.await(func() error {
		out, err := s.Run("ss", "-Hltn", "sport = :179")
		if err == nil && out == "" {
			err = errors.New("nothing listens on port 179")
		}
		return err
	})
}

// await polls f for five seconds, or until the last daemon has died.
func (s *Switch) await(f func() error) error {
	var dead error
	last := s.Daemons[len(s.Daemons)-1]
	err := place.Eventually(5*time.Second, func() error {
		if _, dead = last.Running(); dead != nil {
			return nil
		}
		return f()
	})
	return errors.Join(dead, err)
}

// RoutesCommand is the command on the switch that shows what it learned by BGP.
func (s *Switch) RoutesCommand() []string {
	switch s.Kind {
	case FRR:
		return []string{"vtysh", "--vty_socket", confDir, "-c", "show ip route bgp"}
	case BIRD:
		return []string{"birdc", "-s", confDir + "/bird.ctl", "show route where source = RTS_BGP"}
	case Embedded:
	}
	return []string{"ip", "-4", "route", "show", "proto", strconv.Itoa(s.RouteProtocol())}
}

// RouteProtocol is the kernel's number for routes that the switch learned by BGP.
func (s *Switch) RouteProtocol() int {
	switch s.Kind {
	case FRR:
		return 186 // RTPROT_BGP of linux/rtnetlink.h
	case BIRD:
		return 12 // RTPROT_BIRD
	case Embedded:
	}
	return routedProtocol
}

// ErrNoUser means that a daemon's user cannot be assumed: the user namespace of an ordinary user holds only that user.
var ErrNoUser = errors.New("this user namespace does not hold the user")

// chownTo gives a directory and the files in it to the user.
func chownTo(name, dir string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("find user %s: %w", name, err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			if err = os.Chown(path, uid, gid); err != nil && strings.Contains(err.Error(), "invalid argument") {
				err = fmt.Errorf("%w %s: run as root", ErrNoUser, name)
			}
		}
		return err
	})
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"text/template"
	"time"
)

// setup is what a daemon is told: who it is, whom it talks to and how. Each contender writes it in its own language.
type setup struct {
	Self    netip.Addr
	Peers   []netip.Addr
	Subnet  netip.Prefix  // what it announces; not valid: nothing of its own
	Held    bool          // the subnet is not announced before the trigger is pulled
	Accept  []string      // what it may learn
	GR      bool          // graceful restart
	Retry   bool          // connect again after a second, not after the default
	Restart bool          // this is the process after a restart
	BFD     time.Duration // interval; three lost mean down
	Switch  bool          // it is the switch: it passes on, and what it is connected to
}

// ASN is that of a node, or of the switch.
func (s setup) ASN() int {
	if s.Switch {
		return switchASN
	}
	return 65001 + int(s.Self.As4()[3])
}

// contender is a way to run BGP on a host.
type contender struct {
	name  string
	start func(ctx context.Context, h *host, s setup) error
	stop  syscall.Signal // what systemd's restart sends it, with the unit that it comes with
}

// ours runs bin/routed.
func startOurs(bin string) func(context.Context, *host, setup) error {
	return func(_ context.Context, h *host, s setup) error {
		args := []string{
			"--node=" + h.name, "--pod-subnet=" + s.Subnet.String(),
			"--node-file=" + h.dir + "/node.json", "--socket=" + h.dir + "/routed.sock", "--cni-conf-dir=" + h.dir, "--portald-socket=" + h.dir + "/none",
		}
		for _, a := range s.Accept {
			args = append(args, "--accept="+a)
		}
		for _, p := range s.Peers {
			arg := "--peer=" + p.String()
			if s.BFD > 0 {
				arg += ",bfd=" + s.BFD.String()
			}
			args = append(args, arg)
		}
		return h.start(bin, args...)
	}
}

var birdConf = template.Must(template.New("bird").Parse(`router id {{.Self}};
protocol device { }
{{if .Switch}}protocol direct { ipv4; }
{{end}}protocol kernel { {{if .GR}}persist; graceful restart on; {{end}}merge paths on; ipv4 { export where source = RTS_BGP; import none; }; }
{{if .BFD}}protocol bfd { interface "*" { min rx interval {{.BFD.Milliseconds}} ms; min tx interval {{.BFD.Milliseconds}} ms; idle tx interval {{.BFD.Milliseconds}} ms; multiplier 3; }; }
{{end}}{{if .Subnet.IsValid}}protocol static own { {{if .Held}}disabled; {{end}}ipv4; route {{.Subnet}} unreachable; }
{{end}}{{$s := .}}{{range $i, $p := .Peers}}protocol bgp peer{{$i}} {
  local {{$s.Self}} as {{$s.ASN}}; neighbor {{$p}} external;
  graceful restart {{if $s.GR}}on{{else}}off{{end}};
  {{if $s.BFD}}bfd on; {{end}}{{if $s.Retry}}connect delay time 1; connect retry time 1; error wait time 1, 2;{{end}}
  ipv4 { import all; export where source {{if $s.Switch}}~ [ RTS_BGP, RTS_DEVICE ]{{else}}= RTS_STATIC{{end}}; };
}
{{end}}`))

func startBird(_ context.Context, h *host, s setup) error {
	var conf bytes.Buffer
	if err := birdConf.Execute(&conf, s); err != nil {
		return err
	}
	path, err := h.write("bird.conf", conf.String())
	if err != nil {
		return err
	}
	args := []string{"-f", "-c", path, "-s", h.dir + "/bird.ctl", "-P", h.dir + "/bird.pid"}
	if s.Restart && s.GR {
		args = append(args, "-R")
	}
	return h.start("/usr/sbin/bird", args...)
}

// birdc is an open control connection to a running BIRD, without the cost of a process per command.
type birdc struct{ conn net.Conn }

func dialBird(h *host) (*birdc, error) {
	conn, err := net.Dial("unix", h.dir+"/bird.ctl")
	if err != nil {
		return nil, err
	}
	c := &birdc{conn: conn}
	return c, c.answer() // its greeting
}

func (c *birdc) answer() error {
	if err := c.conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := c.conn.Read(make([]byte, 4096))
	return err
}

func (c *birdc) do(command string) error {
	if _, err := c.conn.Write([]byte(command + "\n")); err != nil {
		return err
	}
	return c.answer()
}

var bgpdConf = template.Must(template.New("bgpd").Parse(`hostname {{.Self}}
router bgp {{.ASN}}
 bgp router-id {{.Self}}
 no bgp ebgp-requires-policy
 no bgp network import-check
{{if .GR}} bgp graceful-restart
{{end}}{{$s := .}}{{range .Peers}} neighbor {{.}} remote-as external
{{if $s.Retry}} neighbor {{.}} timers connect 1
{{end}}{{if $s.BFD}} neighbor {{.}} bfd
 neighbor {{.}} bfd profile p
{{end}}{{end}} address-family ipv4 unicast
{{if .Subnet.IsValid}}  network {{.Subnet}}
{{end}}{{if .Switch}}  redistribute connected
{{end}} exit-address-family
`))

// startFRR runs zebra, then bfdd where it is wanted, then bgpd, as watchfrr would.
func startFRR(ctx context.Context, h *host, s setup) error {
	const lib = "/usr/lib/frr/"
	u, err := user.Lookup("frr")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(h.dir, uid, gid); err != nil {
		return fmt.Errorf("FRR becomes its own user, which needs root: %w", err)
	}
	var conf bytes.Buffer
	if err := bgpdConf.Execute(&conf, s); err != nil {
		return err
	}
	common := []string{"-z", h.dir + "/zserv.api", "--vty_socket", h.dir, "-A", "127.0.0.1", "-P", "0", "-u", "frr", "-g", "frr", "--log", "stdout"}
	daemon := func(name, conf string, awaited string, more ...string) error {
		path, err := h.write(name+".conf", conf)
		if err != nil {
			return err
		}
		if awaited != "" {
			_ = os.Remove(h.dir + awaited) // of the process before
		}
		if err := h.start(lib+name, append(append([]string{"-f", path, "-i", h.dir + "/" + name + ".pid"}, common...), more...)...); err != nil || awaited == "" {
			return err
		}
		return h.file(ctx, awaited)
	}
	var zebra []string
	if s.GR {
		zebra = []string{"-K", "120"}
	}
	err = daemon("zebra", "hostname "+s.Self.String()+"\n", "/zserv.api", zebra...)
	if err == nil && s.BFD > 0 {
		ms := s.BFD.Milliseconds()
		err = daemon("bfdd", fmt.Sprintf("bfd\n profile p\n  transmit-interval %d\n  receive-interval %d\n  detect-multiplier 3\n exit\nexit\n", ms, ms), "/bfdd.vty", "--bfdctl", h.dir+"/bfdd.sock")
	}
	return errors.Join(err, daemon("bgpd", conf.String(), "", "-p", "179"))
}

// file waits until a daemon has made its socket.
func (h *host) file(ctx context.Context, name string) error {
	for start := time.Now(); ; sleep(ctx, 2*time.Millisecond) {
		if _, err := os.Stat(h.dir + name); err == nil {
			return nil
		}
		if time.Since(start) > 10*time.Second || ctx.Err() != nil {
			return fmt.Errorf("%s does not appear;%s", name, h.said())
		}
	}
}

// trigger makes a daemon announce, or withdraw, the subnet that it held back: BIRD is told over its socket, routed by
// what it takes as the proof that it can serve the subnet (the node forwards).
func trigger(h *host, name string) (pull func(on bool) error, err error) {
	if name == "bird" {
		c, err := dialBird(h)
		return func(on bool) error {
			return c.do(map[bool]string{true: "enable own", false: "disable own"}[on])
		}, err
	}
	return func(on bool) error {
		v := map[bool]string{true: "1", false: "0"}[on]
		return h.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(v), 0) })
	}, nil
}

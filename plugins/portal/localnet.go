// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// route_localnet opens an interface to 127.0.0.0/8, and the table's guard chain keeps others from using that. It is set
// with the first port and set back with the last, so that a ruleset that is flushed later does not leave the node open.
// A file tells that it was we who set it.
const localnetMark = ".route_localnet@"

func localnet(ifName string) string { return "net/ipv4/conf/" + ifName + "/route_localnet" }

// openLocalhost lets packets from 127.0.0.1 leave towards the pod. The record is there already: see closeLocalhost.
func openLocalhost(prev *cni.Result, ms []nft.Mapping) error {
	shut, err := shutLocalhost(prev, ms)
	for _, i := range shut {
		if err == nil {
			err = touch(filepath.Join(recordDir, localnetMark+i))
		}
		if err == nil {
			err = sysctl.Set(localnet(i), "1")
		}
	}
	return err
}

// shutLocalhost are the interfaces that ports need which answer on 127.0.0.1, and whose setting is not 1: the node's ends of the
// attachment, but for a port of a bridge that is among them, which nothing is routed to.
func shutLocalhost(prev *cni.Result, ms []nft.Mapping) (shut []string, err error) {
	if !slices.ContainsFunc(ms, func(m nft.Mapping) bool { return m.HostIP.Is4() && (m.HostIP.IsUnspecified() || m.HostIP.IsLoopback()) }) {
		return nil, nil
	}
	for _, i := range prev.Interfaces {
		if i.Sandbox != "" || i.Name == "" {
			continue
		}
		have, err := sysctl.Get(localnet(i.Name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && have == "1" {
			continue
		}
		if err != nil {
			return nil, err
		}
		shut = append(shut, i.Name)
	}
	if len(shut) == 0 {
		return nil, nil
	}
	return routed(prev, shut)
}

// routed leaves out of the interfaces the ports of bridges that the result has.
func routed(prev *cni.Result, names []string) (out []string, err error) {
	host, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	var links []rtnl.Link
	for _, i := range prev.Interfaces {
		if i.Sandbox != "" || i.Name == "" {
			continue
		}
		l, err := host.Link(i.Name)
		if err != nil && !errors.Is(err, rtnl.ErrNoLink) {
			return nil, err
		}
		links = append(links, l)
	}
	for _, l := range links {
		port := l.Master != 0 && slices.ContainsFunc(links, func(b rtnl.Link) bool { return b.Index == l.Master && b.Kind == "bridge" })
		if slices.Contains(names, l.Name) && !port {
			out = append(out, l.Name)
		}
	}
	return out, nil
}

// closeLocalhost sets back what openLocalhost has set, if no attachment has ports any more. An ADD that is under way has
// written its record before it looked at the setting: either it sees what is set here, or its record is seen here.
func closeLocalhost() error {
	list, err := names(recordDir)
	if err != nil {
		return err
	}
	used := anyRecord(list)
	var errs []error
	for _, name := range list {
		i, ok := strings.CutPrefix(name, localnetMark)
		if !ok {
			continue
		}
		path := filepath.Join(recordDir, name)
		if used {
			if _, err := sysctl.Get(localnet(i)); errors.Is(err, fs.ErrNotExist) { // it went with its pod
				errs = append(errs, ignoreGone(unix.Unlink(path)))
			}
			continue
		}
		if err := sysctl.Set(localnet(i), "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, ignoreGone(unix.Unlink(path)))
		if again, err := names(recordDir); err == nil && anyRecord(again) {
			errs = append(errs, touch(path), ignoreGone(sysctl.Set(localnet(i), "1")))
		}
	}
	return errors.Join(errs...)
}

// anyRecord reports that an attachment has ports, of the networks in the list.
func anyRecord(networks []string) bool {
	return slices.ContainsFunc(networks, func(n string) bool {
		if strings.HasPrefix(n, ".") {
			return false
		}
		records, err := names(filepath.Join(recordDir, n))
		return err != nil || slices.ContainsFunc(records, func(r string) bool { return !strings.HasPrefix(r, ".") })
	})
}

// names reads a directory, which need not be there.
func names(dir string) (out []string, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, ignoreGone(err)
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return out, err
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
}

func touch(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "make", Path: path, Err: err}
	}
	return unix.Close(fd)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

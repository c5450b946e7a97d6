// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"net/netip"
	"slices"
)

// Service is an address that somebody answers in another's name: packets to it become packets to an endpoint.
type Service struct {
	At        netip.AddrPort
	Endpoints []netip.AddrPort
}

// Joiner numbers connections, and gives both legs of one that a rule or a proxy has turned into another the same number.
// The second leg is known by its client where that is kept; where a proxy connects itself, it is the first that begins
// towards an endpoint of a service that waits for one.
type Joiner struct {
	Services []Service
	last     int
	flows    map[[2]netip.AddrPort]int
	waiting  []leg // first legs without a second, oldest first
}

type leg struct {
	number  int
	client  netip.AddrPort
	service Service
}

// Number is the connection's number, from 1; 0 for what has no ports.
func (j *Joiner) Number(p Packet) int {
	if p.Src.Port() == 0 || p.Dst.Port() == 0 {
		return 0
	}
	if n, ok := j.flows[[2]netip.AddrPort{p.Src, p.Dst}]; ok {
		return n
	}
	if j.flows == nil {
		j.flows = map[[2]netip.AddrPort]int{}
	}
	n := j.second(p)
	if n == 0 {
		j.last++
		n = j.last
		if i := slices.IndexFunc(j.Services, func(s Service) bool { return s.At == p.Dst }); i >= 0 {
			j.waiting = append(j.waiting, leg{n, p.Src, j.Services[i]})
		}
	}
	j.flows[[2]netip.AddrPort{p.Src, p.Dst}] = n
	j.flows[[2]netip.AddrPort{p.Dst, p.Src}] = n
	return n
}

// second is the number of the first leg that p begins the second of; 0: it does not.
func (j *Joiner) second(p Packet) int {
	ours := func(l leg) bool { return slices.Contains(l.service.Endpoints, p.Dst) }
	i := slices.IndexFunc(j.waiting, func(l leg) bool { return ours(l) && l.client == p.Src })
	if i < 0 && p.First {
		i = slices.IndexFunc(j.waiting, ours)
	}
	if i < 0 {
		return 0
	}
	n := j.waiting[i].number
	j.waiting = slices.Delete(j.waiting, i, i+1)
	return n
}

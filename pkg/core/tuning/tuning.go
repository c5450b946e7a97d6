// SPDX-License-Identifier: Apache-2.0

// Package tuning reads from a Service's annotations how its portals are to be served.
package tuning

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prefix begins the name of every annotation that the package reads.
const Prefix = "l3edge.dev/"

// Balance is a way to choose among endpoints.
type Balance string

// The ways to choose. Maglev is a hash of the client's address: the same on every node of a cluster, and an endpoint that
// comes or goes moves few clients but its own.
const (
	RoundRobin       Balance = "round-robin"
	LeastConnections Balance = "least-connections"
	RandomTwo        Balance = "random-two" // the less busy of two at random
	Maglev           Balance = "maglev"
)

// Check is how endpoints are asked whether they work.
type Check string

// The kinds of check: none, a connection, a GET that must answer 200 to 399, grpc.health.v1.Health/Check that must say
// SERVING.
const (
	NoCheck   Check = "none"
	TCPCheck  Check = "tcp"
	HTTPCheck Check = "http"
	GRPCCheck Check = "grpc"
)

// Settings are the wishes of one Service. They are comparable: equal settings are ==.
type Settings struct {
	Mode    string // "nftables" or "userspace"; empty: as the node does by default
	Balance Balance
	Weights Weights // of endpoints; those of no weight get connections only when there is no other

	Dial          [4]time.Duration // time for each attempt to connect; zeros at the end are attempts that are not made
	MaxConns      int              // most connections at once on one node; 0: no limit
	ProxyProtocol int              // 1 or 2: tell the endpoint the client's address by PROXY protocol; 0: no
	SlowStart     time.Duration    // how long a new endpoint takes to its full share
	UDPIdle       time.Duration    // how long a UDP client keeps its endpoint without packets

	EjectAfter int           // failed connects in a row after which an endpoint rests; 0: never
	EjectFor   time.Duration // how long it rests at first; doubled each time, at most eightfold

	Check         Check
	CheckPath     string        // HTTPCheck: what to GET
	CheckEvery    time.Duration // between the starts of two checks
	CheckTimeout  time.Duration
	CheckFailures int // failures in a row that take an endpoint out
	CheckPasses   int // successes in a row that bring it back
}

// Default returns the settings of a Service without annotations.
func Default() Settings {
	return Settings{
		Balance: RoundRobin,
		Dial:    [4]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}, // kube-proxy's of 2015
		UDPIdle: 10 * time.Second, EjectAfter: 3, EjectFor: 10 * time.Second,
		Check: NoCheck, CheckPath: "/", CheckEvery: 5 * time.Second, CheckTimeout: time.Second, CheckFailures: 3, CheckPasses: 2,
	}
}

// keys are the annotations, without prefix, and what each does with its value.
var keys = map[string]func(*Settings, string) error{
	"mode": func(s *Settings, v string) error { return oneOf(&s.Mode, v, "nftables", "userspace") },
	"balance": func(s *Settings, v string) error {
		return oneOf(&s.Balance, v, RoundRobin, LeastConnections, RandomTwo, Maglev)
	},
	"weights":          func(s *Settings, v string) (err error) { s.Weights, err = parseWeights(v); return err },
	"connect-timeouts": func(s *Settings, v string) error { return timeouts(&s.Dial, v) },
	"max-connections":  func(s *Settings, v string) error { return number(&s.MaxConns, v, 0, 1<<20) },
	"proxy-protocol": func(s *Settings, v string) error {
		var version string
		err := oneOf(&version, v, "v1", "v2")
		s.ProxyProtocol = map[string]int{"v1": 1, "v2": 2}[version]
		return err
	},
	"slow-start":     func(s *Settings, v string) error { return duration(&s.SlowStart, v, 0, time.Hour) },
	"udp-idle":       func(s *Settings, v string) error { return duration(&s.UDPIdle, v, 100*time.Millisecond, time.Hour) },
	"eject-after":    func(s *Settings, v string) error { return number(&s.EjectAfter, v, 0, 1000) },
	"eject-for":      func(s *Settings, v string) error { return duration(&s.EjectFor, v, 100*time.Millisecond, time.Hour) },
	"check":          func(s *Settings, v string) error { return oneOf(&s.Check, v, NoCheck, TCPCheck, HTTPCheck, GRPCCheck) },
	"check-path":     func(s *Settings, v string) error { return path(&s.CheckPath, v) },
	"check-interval": func(s *Settings, v string) error { return duration(&s.CheckEvery, v, 100*time.Millisecond, time.Hour) },
	"check-timeout": func(s *Settings, v string) error {
		return duration(&s.CheckTimeout, v, 10*time.Millisecond, time.Minute)
	},
	"check-failures": func(s *Settings, v string) error { return number(&s.CheckFailures, v, 1, 100) },
	"check-passes":   func(s *Settings, v string) error { return number(&s.CheckPasses, v, 1, 100) },
}

// Keys lists the names of the annotations, with prefix, sorted.
func Keys() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, Prefix+k)
	}
	return out
}

// Parse reads the annotations of a Service. An annotation that makes no sense is reported by name and its setting keeps
// the default; annotations of other names are not ours to judge.
func Parse(annotations map[string]string) (Settings, error) {
	s := Default()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		key, ours := strings.CutPrefix(name, Prefix)
		set, known := keys[key]
		if !ours || !known {
			continue
		}
		if err := set(&s, strings.TrimSpace(annotations[name])); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return s, errors.Join(errs...)
}

func oneOf[T ~string](to *T, v string, allowed ...T) error {
	if !slices.Contains(allowed, T(v)) {
		return fmt.Errorf("%q is none of %s", v, strings.Trim(fmt.Sprint(allowed), "[]"))
	}
	*to = T(v)
	return nil
}

func number(to *int, v string, least, most int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return fmt.Errorf("%q is not a number from %d to %d", v, least, most)
	}
	*to = n
	return nil
}

func duration(to *time.Duration, v string, least, most time.Duration) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most {
		return fmt.Errorf("%q is not a duration from %s to %s", v, least, most)
	}
	*to = d
	return nil
}

func timeouts(to *[4]time.Duration, v string) error {
	var list [4]time.Duration
	parts := strings.Split(v, ",")
	if len(parts) > len(list) {
		return fmt.Errorf("%q has more than %d attempts", v, len(list))
	}
	for i, p := range parts {
		if err := duration(&list[i], strings.TrimSpace(p), time.Millisecond, time.Minute); err != nil {
			return err
		}
	}
	*to = list
	return nil
}

func path(to *string, v string) error {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	if !strings.HasPrefix(v, "/") || strings.ContainsFunc(v, odd) {
		return fmt.Errorf("%q is not a path", v)
	}
	*to = v
	return nil
}

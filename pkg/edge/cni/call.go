// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// Call is one invocation of a plugin, read and checked.
type Call struct {
	Command     string // ADD, DEL, CHECK, GC, STATUS
	ContainerID string
	Netns       string // path; may be empty for DEL
	IfName      string
	Args        map[string]string // CNI_ARGS; keys as the runtime wrote them
	Path        []string          // CNI_PATH
	Net         Network
	runtime     rawjson.Object
	args        rawjson.Object
	Config      []byte         // stdin, whole
	Keys        rawjson.Object // the same, taken apart
	mistakes    []error        // in keys that not every verb needs
	validGiven  bool           // Net.Valid is what somebody said: without a key GC would remove every pod
}

// Network is the part of a plugin's configuration that means the same to every plugin.
type Network struct {
	CNIVersion, Name, Type string
	DNS                    DNS
	Valid                  []Attachment // GC: the attachments that must be kept
	PrevResult             *Result      // what the plugins before this one, or the ADD before this CHECK or DEL, made; nil: none
}

// Attachment names one container's interface.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Runtime decodes runtimeConfig[key] (a capability argument) into v and reports whether it was there. Keys match in any
// letter case at every level: containerd writes HostPort where the conventions say hostPort.
func (c *Call) Runtime(key string, v any) (bool, error) {
	return lookup("runtimeConfig", c.runtime, key, v)
}

// CNIArg decodes args.cni[key] of the configuration into v and reports whether it was there.
func (c *Call) CNIArg(key string, v any) (bool, error) { return lookup("args.cni", c.args, key, v) }

// EnvArg is the value of a CNI_ARGS key, in any letter case.
func (c *Call) EnvArg(key string) (string, bool) {
	for k, v := range c.Args {
		if strings.EqualFold(k, key) {
			return v, true
		}
	}
	return "", false
}

func lookup(place string, o rawjson.Object, key string, v any) (bool, error) {
	raw := o.Get(key)
	if raw.IsNull() {
		return false, nil
	}
	if err := raw.Decode(v); err != nil {
		return false, Errorf(CodeInvalidConfig, "%s.%s: %w", place, key, err)
	}
	return true, nil
}

// parseCall reads environment and configuration. Every mistake of the environment is named at once.
func parseCall(env func(string) string, stdin []byte) (c *Call, err error) {
	c = &Call{Command: env("CNI_COMMAND"), ContainerID: env("CNI_CONTAINERID"), Netns: env("CNI_NETNS"), IfName: env("CNI_IFNAME")}
	pairs, argsErr := parseArgs(env("CNI_ARGS"))
	if c.Command == "DEL" { // needs none of them
		argsErr = nil
	}
	if err := errors.Join(c.checkEnv(), argsErr); err != nil {
		return c, Errorf(CodeInvalidEnvironment, "%w", err)
	}
	c.Args = pairs
	if p := env("CNI_PATH"); p != "" {
		c.Path = strings.Split(p, ":")
	}
	if err := c.ReadConfig(stdin); err != nil {
		return c, err
	}
	if c.Net.CNIVersion == "" {
		c.Net.CNIVersion = "0.1.0" // what the specification says an absent version means; refused below
	}
	if err := c.checkVersion(); err != nil {
		return c, err
	}
	if c.Command == "GC" && !c.validGiven {
		return c, Errorf(CodeInvalidConfig, "%s: missing; GC removes all that it does not name", validKeys[0])
	}
	if !isName(c.Net.Name) {
		err := fmt.Errorf("name: %q is not a network name", c.Net.Name)
		return c, Errorf(CodeInvalidConfig, "%w", errors.Join(append([]error{err}, c.mistakes...)...))
	}
	if prev := c.Keys.Get("prevResult"); !prev.IsNull() {
		if c.Net.PrevResult, err = ParseResult(prev); err != nil {
			c.mistakes = append(c.mistakes, fmt.Errorf("prevResult: %w", err))
		}
	}
	return c, nil
}

// ReadConfig reads a plugin's network configuration into Keys and, but for PrevResult, Net. What every verb needs must be
// right; other mistakes are kept for sound.
func (c *Call) ReadConfig(text []byte) (err error) {
	c.Config = text
	if c.Keys, err = rawjson.ParseObject(text); err != nil {
		return Errorf(CodeDecode, "parse network configuration: %w", err)
	}
	vital := errors.Join(c.Keys.Read("", []rawjson.Field{{Key: "cniVersion", Into: &c.Net.CNIVersion}, {Key: "name", Into: &c.Net.Name}}), c.readValid())
	var args rawjson.Value
	c.mistake(c.Keys.Read("", []rawjson.Field{{Key: "type", Into: &c.Net.Type}, {Key: "dns", Into: &c.Net.DNS}, {Key: "args", Into: &args}}))
	if c.runtime, err = c.Keys.Get("runtimeConfig").Object(); err != nil {
		c.mistake(fmt.Errorf("runtimeConfig: %w", err))
	}
	if o, err := args.Object(); err == nil { // args may be anything that others have agreed on
		c.args, _ = o.Get("cni").Object()
	}
	if vital != nil {
		return Errorf(CodeInvalidConfig, "%w", errors.Join(append([]error{vital}, c.mistakes...)...))
	}
	return nil
}

// validKeys name what GC must keep: the specification's key, and the one that libcni sends beside it since 1.3.
var validKeys = []string{"cni.dev/valid-attachments", "cni.dev/attachments"}

// readValid reads them both: what either of them names is kept. A list that is null or empty means that nothing must be kept,
// but see validGiven.
func (c *Call) readValid() error {
	var errs []error
	for _, key := range validKeys {
		v, more := c.Keys.Get(key), []Attachment(nil)
		if err := v.Decode(&more); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		c.validGiven = c.validGiven || len(v) > 0
		c.Net.Valid = append(c.Net.Valid, more...)
	}
	return errors.Join(errs...)
}

func (c *Call) mistake(err error) {
	if err != nil {
		c.mistakes = append(c.mistakes, err)
	}
}

// sound reports the mistakes in the keys that mean the same to every plugin, and with them those in the plugin's own.
// DEL and GC pass over them: what has been made must be removable, whatever the configuration says by now.
func (c *Call) sound(v Verbs) error {
	if len(c.mistakes) == 0 || c.Command == "DEL" || c.Command == "GC" {
		return nil
	}
	all := c.mistakes
	if v.Problems != nil {
		if err := v.Problems(c); err != nil {
			all = append(all, err)
		}
	}
	return Errorf(CodeInvalidConfig, "%w", errors.Join(all...))
}

func (c *Call) checkEnv() error {
	var errs []error
	if c.Command == "GC" || c.Command == "STATUS" {
		return nil
	}
	if !isName(c.ContainerID) {
		errs = append(errs, fmt.Errorf("CNI_CONTAINERID: %q is not a container id", c.ContainerID))
	}
	if !isIfName(c.IfName) {
		errs = append(errs, fmt.Errorf("CNI_IFNAME: %q is not an interface name", c.IfName))
	}
	if c.Netns == "" && c.Command != "DEL" {
		errs = append(errs, errors.New("CNI_NETNS: missing"))
	}
	return errors.Join(errs...)
}

func (c *Call) checkVersion() error {
	n, ok := rank(c.Net.CNIVersion)
	if !ok {
		return Errorf(CodeIncompatibleVersion, "cniVersion: %q is not one of %s", c.Net.CNIVersion, strings.Join(versions, ", "))
	}
	if c.Command == "CHECK" && n < rank040 || (c.Command == "GC" || c.Command == "STATUS") && n < rank110 {
		return Errorf(CodeIncompatibleVersion, "cniVersion: %s does not know %s", c.Net.CNIVersion, c.Command)
	}
	return nil
}

// parseArgs reads CNI_ARGS: KEY=VALUE pairs between semicolons, in any order.
func parseArgs(s string) (map[string]string, error) {
	args := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", pair)
		}
		args[k] = v
	}
	return args, nil
}

// isName is the specification's form of container ids and network names: a letter or digit, then those or _ . -
func isName(s string) bool {
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return s != ""
}

// isIfName is the kernel's rule (dev_valid_name): 1 to 15 bytes, not . or .., no slash, colon or space; nor a percent sign,
// which makes the kernel choose another name (dev_alloc_name).
func isIfName(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/:% \t\n\v\f\r")
}

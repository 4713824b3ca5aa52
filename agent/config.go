// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/telemetry"
)

// A Config says where an agent belongs. All paths are absolute: it runs in a process of its own.
type Config struct {
	ControlPlane string `json:"controlPlane"`      // host:port
	Node         string `json:"node"`              // the name in the node's certificate
	StateDir     string `json:"stateDir"`          // the spool and its key; written by the agent only
	CA           string `json:"ca"`                // file with the authorities of the control plane
	Cert         string `json:"cert"`              // file with this node's certificate
	Key          string `json:"key"`               // file with its key
	GrantKeys    string `json:"grantKeys"`         // file with the public keys whose grants are believed
	LogKey       string `json:"logKey"`            // file with the audit log's public key
	Ceiling      string `json:"ceiling,omitempty"` // file with the node's own limits; empty: the built-in ceiling
	// RingBytes is the size of a session's ring buffer, a power of two of at least a page; 0: the default.
	RingBytes int `json:"ringBytes,omitempty"`
	// PerfEvents takes kernels without uprobe_multi links (Linux 6.1 to 6.5): probes are perf events there.
	PerfEvents bool `json:"perfEvents,omitempty"`
}

// version is what `keyhole nodes` and the telemetry say of this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// Validate names the first thing that is missing.
func (c *Config) Validate() error {
	for _, f := range []struct{ flag, value string }{
		{"--control-plane", c.ControlPlane}, {"--node", c.Node}, {"--dir", c.StateDir}, {"--ca", c.CA}, {"--cert", c.Cert}, {"--key", c.Key},
		{"--grant-key", c.GrantKeys}, {"--log-key", c.LogKey},
	} {
		if f.value == "" {
			return fmt.Errorf("%s is missing", f.flag)
		}
	}
	if c.identity().ID().IsZero() {
		return fmt.Errorf("--node %q: want letters, digits, '.', '-' and '_'", c.Node)
	}
	for _, path := range []string{c.StateDir, c.CA, c.Cert, c.Key, c.GrantKeys, c.LogKey, c.Ceiling} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s is not an absolute path", path)
		}
	}
	return nil
}

// Options are what the monitor of such an agent has to know.
func (c *Config) Options() (privsep.Options, error) {
	if err := c.Validate(); err != nil {
		return privsep.Options{}, err
	}
	args, err := json.Marshal(c)
	if err != nil {
		return privsep.Options{}, err
	}
	readable := append([]string{c.CA, c.Cert, c.Key, c.GrantKeys, c.LogKey, c.Ceiling}, telemetry.Files()...)
	return privsep.Options{
		AgentArgs:  []string{string(args)},
		StateDir:   c.StateDir,
		ReadOnly:   slices.DeleteFunc(readable, func(path string) bool { return path == "" }),
		Node:       c.Node,
		GrantKeys:  c.GrantKeys,
		LogKey:     c.LogKey,
		Ceiling:    c.Ceiling,
		RingBytes:  c.RingBytes,
		PerfEvents: c.PerfEvents,
	}, nil
}

// configFrom reads what Options put into AgentArgs.
func configFrom(args []string) (Config, error) {
	var c Config
	if len(args) != 1 {
		return c, errors.New("start: not by hand")
	}
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, c.Validate()
}

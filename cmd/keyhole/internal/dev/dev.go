// SPDX-License-Identifier: Apache-2.0

// Package dev runs a whole Keyhole on one machine: a control plane in this process, a monitor with its agent as children,
// and what they and a user need to believe each other.
package dev

import (
	"io"
	"log/slog"
	"path/filepath"

	"github.com/keyhole-dev/keyhole/client"
)

// A Config says where it runs and what it is called.
type Config struct {
	Dir       string // all of its state; made if it is missing
	Listen    string // host:port; port 0: any
	Redaction string // file with the owner's redaction rules; empty: none
	Ceiling   string // file with the node's own limits; empty: the built-in ones
	Node      string // the node's name
	RingBytes int    // of each session; 0: the agent's default
	// PerfEvents takes kernels without uprobe_multi links.
	PerfEvents bool
	// Configs are the configuration files that get a context "dev" and have it as the current one.
	Configs []string
	Logger  *slog.Logger
	// Progress is where a person reads what goes on.
	Progress io.Writer
	// Ready is called with the control plane's address once it takes sessions.
	Ready func(address string)
}

// Where things are, below Config.Dir.
const (
	lockFile        = "lock"
	authorityDir    = "ca"
	authorities     = "ca.pem"
	userCert        = "user.pem"
	userKey         = "user.key"
	controlPlaneDir = "control-plane"
	nodeDir         = "node"
	agentDir        = "agent"

	// ConfigFile is the configuration of the development user.
	ConfigFile = "client.yaml"
)

// user is the name of the development user, and of its context.
const user = "dev"

func (c *Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}

// context is how the development user reaches the control plane.
func (c *Config) context(address, logKey string) client.Context {
	return client.Context{
		Name: user, ControlPlane: address, CA: c.path(authorities), Certificate: c.path(userCert), Key: c.path(userKey),
		LogKey: c.path(controlPlaneDir, logKey),
	}
}

// SPDX-License-Identifier: Apache-2.0

package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent"
	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/controlplane"
	"github.com/keyhole-dev/keyhole/controlplane/ca"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	// life is how long the certificates are good. Each start makes new ones.
	life = 90 * 24 * time.Hour
	// connectTime is how long the agent may take to connect, connectPoll how often it is looked for.
	connectTime = 30 * time.Second
	connectPoll = 20 * time.Millisecond
)

// Run is a Keyhole until ctx is done; then every session is detached and every child gone. Problems of the machine or of
// the configuration are a *problem.Error.
func Run(ctx context.Context, c Config) error {
	if err := able(c.PerfEvents); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	if c.Ceiling != "" {
		if c.Ceiling, err = filepath.Abs(c.Ceiling); err != nil {
			return err
		}
	}
	unlock, err := lock(&c)
	if err != nil {
		return err
	}
	defer unlock()
	if err := issue(&c); err != nil {
		return err
	}
	// The control plane outlives the agent, which reports to it until the last session is detached.
	outer, stopControlPlane := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopControlPlane(nil)
	inner, stopAgent := context.WithCancel(ctx)
	defer stopAgent()
	address := make(chan string, 1)
	failed := make(chan error, 1)
	var work sync.WaitGroup
	work.Go(func() {
		defer stopAgent()
		failed <- controlplane.Run(outer, controlplane.Config{
			Listen: c.Listen, StateDir: c.path(controlPlaneDir), CA: c.path(authorities), Cert: c.path(controlPlaneDir, "cert.pem"),
			Key: c.path(controlPlaneDir, "key.pem"), Redaction: c.Redaction, Logger: c.Logger, Ready: func(a string) { address <- a },
		})
	})
	var result error
	select {
	case a := <-address:
		result = c.serve(inner, a)
		stopControlPlane(nil)
		result = errors.Join(result, <-failed)
	case result = <-failed:
		if in, ok := errors.AsType[*net.OpError](result); ok && in.Op == "listen" {
			result = problem.New(problem.InvalidArgument, "--listen %s: %v; is another keyhole dev running? --listen 127.0.0.1:0 takes any free port", c.Listen, in.Err)
		}
	}
	work.Wait()
	return result
}

// able says in one sentence why this machine cannot run it.
func able(perfEvents bool) error {
	if os.Geteuid() != 0 {
		return problem.New(problem.PermissionDenied, "keyhole dev must be started by root, to load eBPF programs: sudo keyhole dev")
	}
	if err := agent.Supported(perfEvents); err != nil {
		return problem.New(problem.FailedPrecondition, "keyhole dev cannot run here: %v", err)
	}
	return nil
}

// validate says which flag is wrong before anything is begun.
func (c *Config) validate() error {
	if (identity.Identity{Kind: identity.Node, Name: c.Node}).ID().IsZero() {
		return problem.New(problem.InvalidArgument, "--node %.64q: want letters, digits, '.', '-' and '_'", c.Node)
	}
	if n := c.RingBytes; n != 0 && (n < os.Getpagesize() || n&(n-1) != 0) {
		return problem.New(problem.InvalidArgument, "--ring-bytes %d: want a power of two, at least %d", n, os.Getpagesize())
	}
	if _, err := policy.Load(c.Ceiling); err != nil {
		return problem.New(problem.InvalidArgument, "--ceiling: %v", err)
	}
	if c.Redaction == "" {
		return nil
	}
	data, err := os.ReadFile(c.Redaction)
	if err != nil {
		return problem.New(problem.InvalidArgument, "--redaction: %v", err)
	}
	if _, err := redact.ParsePolicy(data); err != nil {
		return problem.New(problem.InvalidArgument, "--redaction %s: %v", c.Redaction, err)
	}
	return nil
}

// lock keeps a second one out of the directory.
func lock(c *Config) (unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, problem.New(problem.FailedPrecondition, "another keyhole dev runs in %s: end it, or name another directory by --dir", c.Dir)
	}
	return func() { f.Close() }, nil
}

// issue makes the authority, if there is none, and new certificates for the control plane, the node and the user.
func issue(c *Config) error {
	authority, err := ca.Open(c.path(authorityDir))
	if err != nil {
		return err
	}
	if err := authority.WriteCertificate(c.path(authorities)); err != nil {
		return err
	}
	for _, dir := range []string{controlPlaneDir, nodeDir, agentDir} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	for _, issued := range []struct {
		id        identity.Identity
		cert, key string
	}{
		{identity.Identity{Kind: identity.ControlPlane}, c.path(controlPlaneDir, "cert.pem"), c.path(controlPlaneDir, "key.pem")},
		{identity.Identity{Kind: identity.Node, Name: c.Node}, c.path(nodeDir, "cert.pem"), c.path(nodeDir, "key.pem")},
		{identity.Identity{Kind: identity.User, Name: user}, c.path(userCert), c.path(userKey)},
	} {
		if err := authority.Issue(issued.id, life, issued.cert, issued.key); err != nil {
			return err
		}
	}
	return nil
}

// serve keeps an agent running until ctx is done. It says that it is ready when the agent is connected.
func (c *Config) serve(ctx context.Context, address string) error {
	reached := c.context(address, controlplane.LogKey)
	for _, file := range append([]string{c.path(ConfigFile)}, c.Configs...) {
		if err := use(file, reached); err != nil {
			return err
		}
	}
	options, err := c.agent(address).Options()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	supervised := make(chan struct{})
	go func() {
		defer close(supervised)
		c.supervise(ctx, options)
	}()
	err = connected(ctx, reached, c.Node)
	if err == nil {
		c.Ready(address)
		<-ctx.Done()
	}
	stop()
	<-supervised
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it was told to end before it was ready
	}
	return err
}

func use(file string, x client.Context) error {
	config, err := client.LoadOrNew(file)
	if err != nil {
		return err
	}
	config.Use(x)
	return config.Save(file)
}

func (c *Config) agent(address string) *agent.Config {
	return &agent.Config{
		ControlPlane: address, Node: c.Node, StateDir: c.path(agentDir), CA: c.path(authorities),
		Cert: c.path(nodeDir, "cert.pem"), Key: c.path(nodeDir, "key.pem"),
		GrantKeys: c.path(controlPlaneDir, controlplane.GrantKeys), LogKey: c.path(controlPlaneDir, controlplane.LogKey), Ceiling: c.Ceiling, RingBytes: c.RingBytes, PerfEvents: c.PerfEvents,
	}
}

// connected waits until the control plane knows the node, and says why if it takes no sessions.
func connected(ctx context.Context, reached client.Context, node string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTime, fmt.Errorf("the agent did not connect within %v; what it said is above", connectTime))
	defer cancel()
	conn, err := client.Dial(reached)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		list, err := conn.Probe.ListNodes(ctx, &keyholev1.ListNodesRequest{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		for _, n := range list.GetNodes() {
			if n.GetName() == node && n.GetConnected() && n.GetTier() == "refused" {
				return problem.New(problem.FailedPrecondition, "this node cannot take sessions: %s", n.GetWhy())
			}
			if n.GetName() == node && n.GetConnected() {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(connectPoll):
		}
	}
}

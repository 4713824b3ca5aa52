// SPDX-License-Identifier: Apache-2.0

// Package controlplane wires a control plane: its state in etcd, its audit log, its keys, and the server in front of them.
package controlplane

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/controlplane/registry"
	"github.com/keyhole-dev/keyhole/controlplane/server"
	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/keyfile"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
	"github.com/keyhole-dev/keyhole/telemetry"
)

// Where a control plane keeps things, below its state directory.
const (
	// GrantKeys holds the public keys that agents check grants with (PEM).
	GrantKeys = "keys/grant-keys.pem"
	// LogKey holds the public key that audit checkpoints are checked with.
	LogKey = "keys/log.key.pub"
	// LogDir is the audit log.
	LogDir = "log"

	grantKey = "keys/grant.key"
	logKey   = "keys/log.key"
	storeDir = "store"

	// origin names the log in its checkpoints.
	origin = "keyhole.dev/audit"
)

// closeTime is how long the log and the telemetry have to write what waits when a control plane ends.
const closeTime = 2 * time.Second

// A Config says where a control plane listens and what it is.
type Config struct {
	Listen        string // host:port; port 0: any
	StateDir      string // its own, and nobody else's
	CA, Cert, Key string // files in PEM
	Redaction     string // file with the owner's rules; empty: none
	Logger        *slog.Logger
	// Ready is called with the address once callers are answered.
	Ready func(address string)
}

// Run is a control plane until ctx is done. It returns an error if it cannot begin, or has to end before that.
func Run(ctx context.Context, c Config) (err error) {
	rules, err := loadRules(c.Redaction)
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(logKey), LogDir, storeDir} {
		if err := private(filepath.Join(c.StateDir, dir)); err != nil {
			return err
		}
	}
	grants, err := loadGrantKey(filepath.Join(c.StateDir, grantKey), filepath.Join(c.StateDir, GrantKeys))
	if err != nil {
		return err
	}
	key, err := tlog.LoadKey(filepath.Join(c.StateDir, logKey), origin)
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	log, err := tlog.Open(filepath.Join(c.StateDir, LogDir), key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, within(closeTime, log.Close)) }()
	s, err := store.Open(ctx, filepath.Join(c.StateDir, storeDir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // what the server stands on outlives it
	defer stop()
	r, err := registry.Open(running, s, func(m *keyholev1.Session) { recordEnd(log, m, c.Logger) })
	if err != nil {
		return err
	}
	serving, fail := context.WithCancelCause(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { fail(r.Wait()) })
	if err := startCopies(running, &work, log, s, c.Logger); err != nil {
		return err
	}
	front, err := server.New(server.Config{
		CA: c.CA, Cert: c.Cert, Key: c.Key, GrantKey: grants, Rules: rules, Log: log, Store: s, Registry: r, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	if c.Ready != nil {
		c.Ready(listener.Addr().String())
	}
	err = front.Serve(serving, listener)
	if ctx.Err() == nil && err == nil {
		err = context.Cause(serving)
	}
	return err
}

// recordEnd puts on record that a session was ended here, because its node was not heard of. The node's own records of it may
// still come.
func recordEnd(log *tlog.Log, m *keyholev1.Session, logger *slog.Logger) {
	kind := audit.AgentLost
	if m.GetSummary().GetEndedBy() == event.EndNotAttached {
		kind = audit.NotAttached
	}
	_, err := log.Append(context.Background(), &audit.Record{
		Kind: kind, Time: time.Now(), SessionID: m.GetId(), Node: m.GetNode(), Details: map[string]string{"why": m.GetError()},
	})
	if err != nil {
		logger.Error("the end of a session is not on record", "session", m.GetId(), "error", err)
	}
}

// private makes a directory that nobody else may enter, or closes it to them.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close state directory: %w", err)
	}
	return nil
}

func within(limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return do(ctx)
}

func loadRules(file string) (*redact.Ruleset, error) {
	if file == "" {
		return redact.Shipped(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read redaction rules: %w", err)
	}
	policy, err := redact.ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return redact.Shipped().WithOwnerPolicy(policy)
}

// loadGrantKey reads the key that grants are signed with, or makes it, and writes its public half for the agents.
func loadGrantKey(private, public string) (ed25519.PrivateKey, error) {
	key, err := keyfile.LoadOrMake(private)
	if err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	return key, nil
}

// version is what the telemetry says of this program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// service is whose telemetry it is.
func service() telemetry.Service {
	return telemetry.Service{Name: "keyhole-controlplane", Version: version()}
}

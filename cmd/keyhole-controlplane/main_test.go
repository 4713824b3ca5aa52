// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/controlplane/ca"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestFlags(t *testing.T) {
	for _, c := range []struct{ name, args, want string }{
		{"nothing", "", `"ca", "cert", "dir", "key" not set`},
		{"an argument", "serve", "serve"},
		{"a flag that is none", "--port 1", "--port"},
		{"no such files", "--dir " + t.TempDir() + " --ca no --cert no --key no --redaction no", "read redaction rules"},
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(c.args))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.want)
		}
	}
}

func TestRunsUntilItIsTold(t *testing.T) {
	dir, err := os.MkdirTemp("", "kh") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := func(name string) string { return filepath.Join(dir, name) }
	authority, err := ca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Issue(identity.Identity{Kind: identity.ControlPlane}, time.Hour, path("cert.pem"), path("key.pem")); err != nil {
		t.Fatal(err)
	}
	cmd := command()
	cmd.SetArgs([]string{
		"--listen", "127.0.0.1:0", "--dir", path("state"), "--ca", path("ca.pem"), "--cert", path("cert.pem"), "--key", path("key.pem"),
	})
	read, write := io.Pipe()
	cmd.SetErr(write)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	over := make(chan error, 1)
	go func() {
		over <- cmd.ExecuteContext(ctx)
		write.Close()
	}()
	ready := false
	for lines := bufio.NewScanner(read); lines.Scan(); {
		if strings.Contains(lines.Text(), "msg=ready address=127.0.0.1:") {
			ready = true
			cancel()
		}
	}
	if err := <-over; err != nil || !ready {
		t.Errorf("ready: %v; it ended with %v", ready, err)
	}
}

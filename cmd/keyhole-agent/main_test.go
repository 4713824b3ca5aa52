// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent"
	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestMain is also every process that the examination of a node starts.
func TestMain(m *testing.M) {
	privsep.Main(privsep.Roles{})
	testkit.MainAlone(m)
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ name, args, want string }{
		{"nothing", "", "--control-plane is missing"},
		{"no node", "--control-plane localhost:1", "--node is missing"},
		{"an argument", "serve", "serve"},
		{"a flag that is none", "--listen :1", "--listen"},
		{"no files", "--control-plane localhost:1 --node n1 --dir d", "--ca is missing"},
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

func TestPathsBecomeAbsolute(t *testing.T) {
	c := agent.Config{
		ControlPlane: "localhost:1", Node: "n1", StateDir: "state", CA: "ca", Cert: "cert", Key: "/etc/key", GrantKeys: "grants", LogKey: "log", RingBytes: 4096,
	}
	o, err := resolve(&c)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(o.StateDir) || filepath.Base(o.StateDir) != "state" || c.Key != "/etc/key" || c.Ceiling != "" || o.RingBytes != 4096 {
		t.Errorf("options %+v of %+v", o, c)
	}
}

// TestNodeRunsNoControlPlane: what a node's agent links is what can go wrong on every node, and is resident in each of its processes.
func TestNodeRunsNoControlPlane(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"go.etcd.io/", "github.com/transparency-dev/tessera", "cel.dev/", "keyhole/controlplane", "keyhole/client", "charm.land/"} {
		if strings.Contains(string(out), foreign) {
			t.Errorf("keyhole-agent links %s", foreign)
		}
	}
}

// TestDoctor examines this machine, for people and for programs.
func TestDoctor(t *testing.T) {
	testkit.RequireRoot(t)
	run := func(args ...string) string {
		var out strings.Builder
		cmd := command()
		cmd.SetArgs(append([]string{"doctor"}, args...))
		cmd.SetOut(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if text := run(); !strings.Contains(text, "this node takes sessions") || !strings.Contains(text, "a hit takes") {
		t.Errorf("for people:\n%s", text)
	}
	var report struct {
		doctor.Report
		Findings []doctor.Finding `json:"findings"`
	}
	if err := json.Unmarshal([]byte(run("-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.SelfTest.Trap <= 0 || len(report.Findings) < 10 || !report.Facts.BTF {
		t.Errorf("for programs: %+v", report)
	}
}

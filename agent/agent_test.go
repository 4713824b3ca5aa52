// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/agent/session"
	spooled "github.com/keyhole-dev/keyhole/audit"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/keyfile"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestMain is also every process that an agent consists of.
func TestMain(m *testing.M) {
	privsep.Main(privsep.Roles{Agent: Role})
	testkit.MainAlone(m)
}

func TestWaitUntil(t *testing.T) {
	at := loader.BootNow() + uint64(30*time.Millisecond)
	if err := waitUntil(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if now := loader.BootNow(); now < at || now > at+uint64(5*time.Second) {
		t.Errorf("it woke %v after the deadline", time.Duration(int64(now-at)))
	}
	if err := waitUntil(t.Context(), 0); err != nil {
		t.Errorf("a deadline that is over: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := waitUntil(ctx, at+uint64(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, it returns %v", err)
	}
	if err := waitUntil(ctx, at+uint64(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before, it returns %v", err)
	}
}

func TestWall(t *testing.T) {
	want := time.Now().Add(time.Minute)
	if got := wall(loader.BootNow() + uint64(time.Minute)); got.Sub(want).Abs() > time.Second {
		t.Errorf("a minute from now is %v; want about %v", got, want)
	}
}

var discard = slog.New(slog.DiscardHandler)

var whole = Config{
	ControlPlane: "127.0.0.1:1", Node: "n1", StateDir: "/s", CA: "/c/ca", Cert: "/c/cert", Key: "/c/key", GrantKeys: "/c/grants", LogKey: "/c/log",
}

func TestConfig(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	o, err := whole.Options()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/c/ca", "/c/cert", "/c/key", "/c/grants", "/c/log"}; !slices.Equal(o.ReadOnly, want) {
		t.Errorf("the agent may read %q; want %q", o.ReadOnly, want)
	}
	if c, err := configFrom(o.AgentArgs); err != nil || c != whole {
		t.Errorf("the agent gets %+v (%v)", c, err)
	}
	if _, err := configFrom([]string{"serve"}); err == nil {
		t.Error("an agent can be started by hand")
	}
	for flag, spoil := range map[string]func(*Config){
		"--node":             func(c *Config) { c.Node = "" },
		"--node \"n/1\"":     func(c *Config) { c.Node = "n/1" },
		"--grant-key":        func(c *Config) { c.GrantKeys = "" },
		"not an absolute":    func(c *Config) { c.StateDir = "state" },
		"not an absolute pa": func(c *Config) { c.Ceiling = "ceiling.yaml" },
	} {
		c := whole
		spoil(&c)
		if _, err := c.Options(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("error %v; want one that says %s", err, flag)
		}
	}
}

// TestRecords goes through the facts of one session and reads them back from the spool.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	key, err := keyfile.LoadOrMake(filepath.Join(dir, "spool.key"))
	if err != nil {
		t.Fatal(err)
	}
	spool, err := spooled.OpenSpool(filepath.Join(dir, "spool"), key, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	r := &runner{config: whole, machine: session.New(4), jobs: map[string]*job{}, spool: spool}
	j := r.job("s1")
	j.grant = &grant.Grant{SessionID: "s1", Revision: 1, Requester: "ada", TTL: time.Minute}
	j.plan = &plan.Plan{
		Function: strings.Repeat("long", 1000), Identity: target.Identity{PID: 10, Comm: "shop", Path: "/bin/shop"},
		Sites: []target.Site{{RuntimeAddress: 0x401000, FileOffset: 0x1000}},
	}
	r.machine.Handle(session.Desired{Revision: 1, Sessions: []session.Desire{{SessionID: "s1", Revision: 1}}})
	r.machine.Handle(session.Prepared{SessionID: "s1", PlanDigest: j.plan.Digest()})
	if _, err := spool.Append(r.record(session.Record{SessionID: "s1", Kind: session.RecordAboutToAttach})); err != nil {
		t.Fatal(err)
	}
	if open := spool.Open(); !slices.Equal(open, []string{"s1"}) {
		t.Errorf("open sessions: %q", open)
	}

	// A successor finds the open pair, and that another session was refused for good.
	aside := session.Record{SessionID: "s2", Kind: session.RecordRefused, Problem: problem.New(problem.PermissionDenied, "a replay"), Aside: true}
	if _, err := spool.Append(r.record(aside)); err != nil {
		t.Fatal(err)
	}
	next := &runner{config: whole, machine: session.New(4), jobs: map[string]*job{}, spool: spool, log: discard}
	if err := next.closeOrphans(); err != nil {
		t.Fatal(err)
	}
	if s, _ := next.machine.Session("s1"); s.State != session.Ended || s.EndedBy != "agent_lost" {
		t.Errorf("the session of the agent that died is %+v", s)
	}
	if open := spool.Open(); len(open) > 0 {
		t.Errorf("open sessions after it: %q", open)
	}
	if by := spool.Finished(); by["s1"] != "agent_lost" || len(by) != 1 {
		t.Errorf("finished: %v; a refusal that stands aside finishes nothing", by)
	}
	if _, died := spool.DiedAttaching(cut(j.plan.Function), "/bin/shop buildId= device=0 inode=0 size=0"); !died {
		t.Error("nothing reminds of an agent that died while it attached")
	}
	if err := next.tombstone(j, time.Now()); err == nil || !strings.Contains(err.Error(), "died while it attached") {
		t.Errorf("the same probe is tried again: %v", err)
	}
	if err := next.tombstone(j, time.Now().Add(tombstoneTime+time.Second)); err != nil {
		t.Errorf("much later: %v", err)
	}
	another := *j.plan
	another.Function = "main.other"
	if err := next.tombstone(&job{grant: j.grant, plan: &another}, time.Now()); err != nil {
		t.Errorf("another function: %v", err)
	}
	third := &runner{config: whole, machine: session.New(4), jobs: map[string]*job{}, spool: spool, log: discard}
	if err := third.closeOrphans(); err != nil {
		t.Fatal(err)
	}
	if effects := third.machine.Handle(session.Desired{Revision: 1, Sessions: []session.Desire{{SessionID: "s1", Revision: 1}}}); len(effects) != 1 {
		t.Errorf("a session that is over begins again: %v", effects)
	}

	records, last, err := spool.Pending(0, 10)
	if err != nil || last != 3 {
		t.Fatalf("%d records in the spool (%v); want 3: one detached, whoever asks", last, err)
	}
	begun, err := audit.Parse(records[0])
	if err != nil {
		t.Fatal(err)
	}
	d := begun.Details
	if begun.Kind != audit.AboutToAttach || begun.Actor != "spiffe://keyhole.dev/node/n1" || d["planDigest"] != j.plan.Digest() || d["requester"] != "ada" || d["sites"] != "0x401000 at file offset 0x1000" ||
		d["ttl"] != "1m0s" || len(d["function"]) > maxDetail+3 {
		t.Errorf("on record: %+v", begun)
	}
	ended, err := audit.Parse(records[2])
	if err != nil {
		t.Fatal(err)
	}
	if ended.Kind != audit.Detached || ended.Details["endedBy"] != "agent_lost" || !strings.Contains(ended.Details["counts"], "final=false") {
		t.Errorf("on record: %+v", ended)
	}
}

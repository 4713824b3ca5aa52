// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const example = `
version: 1
max: {ttl: 5m, rate: 100/s, bytes: 1048576, hits: 1000, budget: 1%, node_budget: 3%}
forbid:
  executables: ["/usr/sbin/*"]
  functions: ["crypto/*"]
rules:
  - {id: node/mail, name: "*mail*", action: digest}
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxTTL != 5*time.Minute || c.MaxRate != 100 || c.MaxBytes != 1<<20 || c.MaxHits != 1000 || c.MaxBudget != 10 || c.NodeBudget != 30 || len(c.Redaction.Rules) != 1 || c.Redaction.Rules[0].ID != "node/mail" {
		t.Errorf("read %+v", c)
	}
	if c, err = Parse([]byte("version: 1")); err != nil || c.MaxTTL != 15*time.Minute || c.MaxRate != probe.MaxRate || c.MaxHits != 0 {
		t.Errorf("an empty ceiling is %+v, %v", c, err)
	}
	for text, says := range map[string]string{
		"":                                               "empty",
		"max: {ttl: 5m}":                                 "version is 0",
		"version: 1\nmaximum: {}":                        `line 2: unknown key "maximum"`,
		"version: 1\nmax: {tll: 5m}":                     `line 2: unknown key "tll"`,
		"version: 1\nmax: {ttl: 2h}":                     "max.ttl",
		"version: 1\nmax: {ttl: 5}":                      "max.ttl",
		"version: 1\nmax: {ttl: 0s}":                     "max.ttl",
		"version: 1\nmax: {rate: fast}":                  "max.rate",
		"version: 1\nmax: {budget: 2}":                   "max.budget",
		"version: 1\nmax: {budget: 0%}":                  "max.budget",
		"version: 1\nmax: {node_budget: NaN%}":           "max.node_budget",
		"version: 1\nmax: {budget: 3%, node_budget: 2%}": "more than max.node_budget",
		"version: 1\nmax: {bytes: 99999999999}":          "max.bytes",
		"version: 1\nmax: {bytes: -1}":                   "line 2",
		"version: 1\nforbid: {functions: [\"\"]}":        "empty pattern",
		"version: 1\nrules:\n- {name: x}":                "line 3: no action",
	} {
		if c, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %+v, %v; want an error that says %q", text, c, err, says)
		}
	}
}

// TestBudgets: what is not said follows what is, so that no session may take more than all together.
func TestBudgets(t *testing.T) {
	for text, want := range map[string][2]probe.Budget{
		"":                                     {50, 50},
		"max: {budget: 2%}":                    {20, 50},
		"max: {budget: 20%}":                   {200, 200},
		"max: {node_budget: 20%}":              {50, 200},
		"max: {node_budget: 0.5%}":             {5, 5},
		"max: {budget: 1%, node_budget: 400%}": {10, 4000},
	} {
		c, err := Parse([]byte("version: 1\n" + text))
		if err != nil || c.MaxBudget != want[0] || c.NodeBudget != want[1] {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestLoad(t *testing.T) {
	if c, err := Load(""); err != nil || c.MaxTTL != 15*time.Minute {
		t.Errorf("no file: %+v, %v", c, err)
	}
	file := filepath.Join(t.TempDir(), "ceiling.yaml")
	if _, err := Load(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.MaxRate != 100 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.WriteFile(file, []byte("version: 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("an error that does not name the file: %v", err)
	}
}

// wants compares an error with what it should say; nothing: allowed.
func wants(t *testing.T, err error, says string) {
	t.Helper()
	if says == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	p, ok := errors.AsType[*problem.Error](err)
	if !ok || p.Code != problem.PermissionDenied || !strings.Contains(p.Message, says) || !strings.Contains(p.Message, "ceiling") {
		t.Errorf("error %#v does not say %q", err, says)
	}
}

func TestAllow(t *testing.T) {
	small, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		ceiling *Ceiling
		change  func(*probe.Spec)
		says    string
	}{
		"the defaults":                   {Default(), func(*probe.Spec) {}, ""},
		"the most":                       {Default(), func(s *probe.Spec) { s.Limits.TTL = 15 * time.Minute }, ""},
		"more than the most":             {Default(), func(s *probe.Spec) { s.Limits.TTL = 15*time.Minute + 1 }, "at most 15m0s"},
		"the agent":                      {Default(), func(s *probe.Spec) { s.Target = probe.Selector{Kind: probe.SelectExe, Path: "/usr/bin/keyhole-agent"} }, "part of Keyhole"},
		"the control plane":              {Default(), func(s *probe.Spec) { s.Target = probe.Selector{Kind: probe.SelectExe, Path: "/x/keyhole-controlplane"} }, "part of Keyhole"},
		"a path with our name":           {Default(), func(s *probe.Spec) { s.Target = probe.Selector{Kind: probe.SelectExe, Path: "/keyhole/bin/shop"} }, ""},
		"without a number of hits":       {small, func(s *probe.Spec) { s.Limits.MaxBytes = 1 }, "--max-hits"},
		"within all":                     {small, func(s *probe.Spec) { s.Limits = probe.Limits{MaxHits: 1000, MaxBytes: 1} }, ""},
		"the default bytes are too many": {small, func(s *probe.Spec) { s.Limits.MaxHits = 1 }, "bytes"},
		"costly":                         {Default(), func(s *probe.Spec) { s.Limits.Budget = 51 }, "--budget 5.1%: at most 5% here"},
		"the default budget is bounded":  {small, func(s *probe.Spec) { s.Limits = probe.Limits{MaxHits: 1000, MaxBytes: 1, Budget: 20} }, ""},
		"too fast":                       {small, func(s *probe.Spec) { s.Limits = probe.Limits{MaxHits: 1, MaxBytes: 1, Rate: 101} }, "--rate 101/s"},
		"a forbidden executable": {small, func(s *probe.Spec) {
			s.Limits, s.Target = probe.Limits{MaxHits: 1, MaxBytes: 1}, probe.Selector{Kind: probe.SelectExe, Path: "/usr/sbin/sshd"}
		}, "/usr/sbin/sshd"},
	} {
		t.Run(what, func(t *testing.T) {
			s := &probe.Spec{Target: probe.Selector{Kind: probe.SelectPID, PID: 1}}
			c.change(s)
			wants(t, c.ceiling.Allow(s), c.says)
		})
	}
}

func TestAllowTarget(t *testing.T) {
	small, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		ceiling              *Ceiling
		comm, path, function string
		says                 string
	}{
		"a shop":                  {Default(), "shop", "/srv/shop", "main.main", ""},
		"the monitor":             {Default(), "keyhole-monitor", "/tmp/x", "main.main", "keyhole-monitor"},
		"a holder":                {Default(), "kh-holder", "/tmp/x", "main.main", "kh-holder"},
		"a control plane":         {Default(), "keyhole-control", "/tmp/x", "main.main", "keyhole-control"},
		"our program, renamed":    {Default(), "shop", "/opt/keyhole", "main.main", "part of Keyhole"},
		"our program, deleted":    {Default(), "shop", "/opt/keyhole (deleted)", "main.main", "part of Keyhole"},
		"Go's runtime":            {Default(), "shop", "/srv/shop", "runtime.mallocgc", "runtime.mallocgc"},
		"Go's inner runtime":      {Default(), "shop", "/srv/shop", "internal/runtime/maps.(*Map).Put", "internal/runtime"},
		"a package of that name":  {Default(), "shop", "/srv/shop", "example.com/runtime.Run", ""},
		"a forbidden function":    {small, "shop", "/srv/shop", "crypto/tls.(*Conn).Read", "crypto/tls"},
		"a forbidden executable":  {small, "sshd", "/usr/sbin/sshd", "main", "/usr/sbin/sshd"},
		"one that was forbidden":  {small, "sshd", "/usr/sbin/sshd (deleted)", "main", "/usr/sbin/sshd"},
		"the runtime, in any way": {small, "shop", "/srv/shop", "runtime.mallocgc", "runtime.mallocgc"},
	} {
		t.Run(what, func(t *testing.T) {
			tgt := &target.Target{Identity: target.Identity{PID: 1, Comm: c.comm, Path: c.path}, Function: target.Function{Name: c.function}}
			wants(t, c.ceiling.AllowTarget(tgt), c.says)
		})
	}
}

// TestRulesAreCompulsory carries a ceiling's rules to where they decide.
func TestRulesAreCompulsory(t *testing.T) {
	c, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := redact.ParsePolicy([]byte("version: 1\nrules: [{name: email, action: keep}]"))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := redact.Shipped().WithOwnerPolicy(owner)
	if err != nil {
		t.Fatal(err)
	}
	if rules, err = c.Ruleset(rules); err != nil {
		t.Fatal(err)
	}
	d := rules.Decide(redact.Field{Path: "user.email", Names: []string{"user", "email"}, Kind: "string"})
	if d.Action.Kind != redact.Digest || d.Rule != "node/mail" {
		t.Errorf("an owner's keep stands against the node's digest: %+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		if c.MaxTTL <= 0 || c.MaxTTL > probe.MaxTTL || c.MaxRate == 0 || c.MaxBytes == 0 || c.MaxBytes > probe.MaxBytes {
			t.Errorf("ceiling %+v", c)
		}
		if _, err := c.Ruleset(redact.Shipped()); err != nil {
			t.Errorf("the rules were parsed, and then refused: %v", err)
		}
	})
}

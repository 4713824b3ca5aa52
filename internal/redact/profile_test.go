// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"testing"

	"pgregory.net/rapid"
)

func policy(t *testing.T, yaml string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte("version: 1\n" + yaml))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProfiles: what becomes of a string of which nobody speaks, by the node's environment and what each side says of profiles.
func TestProfiles(t *testing.T) {
	for _, c := range []struct{ owner, node, environment, action, rule string }{
		{"", "", "", "detect:all", RuleDefaultText},
		{"", "", "staging", "detect:all", RuleDefaultText},
		{"", "", "prod", "digest", RuleStrictText},
		{"profile: strict", "", "", "digest", RuleStrictText},
		{"profile: default", "", "prod", "detect:all", RuleDefaultText},
		{"environments: {prod: {profile: default}}", "", "prod", "detect:all", RuleDefaultText},
		{"environments: {staging: {profile: strict}}", "", "prod", "digest", RuleStrictText},
		{"environments: {staging: {profile: strict}}", "", "staging", "digest", RuleStrictText},
		{"profile: strict\nenvironments: {dev: {profile: default}}", "", "dev", "detect:all", RuleDefaultText},
		{"profile: strict\nenvironments: {dev: {profile: default}}", "", "staging", "digest", RuleStrictText},
		{"profile: default", "profile: strict", "dev", "digest", RuleStrictText},
		{"profile: strict", "profile: default", "dev", "digest", RuleStrictText},
	} {
		set, err := Shipped().WithOwnerPolicy(policy(t, c.owner))
		if err != nil {
			t.Fatal(err)
		}
		if set, err = set.In(c.environment).With(policy(t, c.node)); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"string", "cstring", "bytes"} {
			if d := set.Decide(field("note", kind, "string")); d.Action.String() != c.action || d.Rule != c.rule {
				t.Errorf("owner %q, node %q, environment %q: a %s is %s by %s; want %s by %s", c.owner, c.node, c.environment, kind, d.Action, d.Rule, c.action, c.rule)
			}
		}
		if d := set.Decide(field("ok", "bool", "bool")); d.Action.Kind != Keep {
			t.Errorf("a profile speaks of a boolean: %s", d.Action)
		}
	}
}

// TestExecutablesAndWorkloads: a rule for one program or workload is none for others. Where the workload is not known, what a rule makes
// stricter holds, and what it makes weaker does not.
func TestExecutablesAndWorkloads(t *testing.T) {
	set, err := Shipped().WithOwnerPolicy(policy(t, `
rules:
  - {id: shop, name: note, executable: "/srv/shop*", action: keep}
  - {id: unit, name: memo, workload: unit/shop.service, action: keep}
  - {id: guard, name: text, workload: "unit/*", action: drop}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, executable, workload, want string }{
		{"note", "/srv/shop-2", "", "keep"}, {"note", "/usr/bin/shop", "", "detect:all"}, {"note", "", "", "detect:all"},
		{"memo", "", "unit/shop.service", "keep"}, {"memo", "", "unit/other.service", "detect:all"}, {"memo", "", "", "detect:all"},
		{"text", "", "unit/shop.service", "drop"}, {"text", "", "container/1", "detect:all"}, {"text", "", "", "drop"},
	} {
		f := field(c.name, "string", "string")
		f.Executable, f.Workload = c.executable, c.workload
		if d := set.Decide(f); d.Action.String() != c.want {
			t.Errorf("%s in %q, %q is %s by %s; want %s", c.name, c.executable, c.workload, d.Action, d.Rule, c.want)
		}
	}
}

// TestSetsOfTwoSides: a name stands for one pattern.
func TestSetsOfTwoSides(t *testing.T) {
	owner := policy(t, "sets: {a/b: 'x+', a/c: 'y+'}\nrules: [{name: n, action: 'detect:a/b'}]")
	set, err := Shipped().WithOwnerPolicy(owner)
	if err != nil {
		t.Fatal(err)
	}
	both, err := set.With(policy(t, "sets: {a/b: 'x+', a/d: 'z+'}\nrules: [{name: n, action: 'detect:a/d'}]"))
	if err != nil || len(both.Patterns()) != 3 {
		t.Fatalf("%v: %v", both, err)
	}
	if d := both.Decide(field("n", "string", "string")); d.Action.String() != "detect:a/b,a/d" {
		t.Errorf("it is %s", d.Action)
	}
	if _, err := set.With(policy(t, "sets: {a/b: 'never'}")); err == nil {
		t.Error("a node's set may mean something else to the owner")
	}
}

// TestNothingWeakens: whatever an owner's policy says, a node's makes no decision weaker, and neither does an action that is joined with one that
// means nothing for the value.
func TestNothingWeakens(t *testing.T) {
	kinds := rapid.SampledFrom([]string{"string", "cstring", "bytes", "int", "uint", "bool", "float", "length", "pointer"})
	names := rapid.SampledFrom([]string{"a", "b", "card", "token"})
	rules := rapid.Custom(func(t *rapid.T) Rule {
		return Rule{
			ID: "r/" + rapid.StringMatching("[a-z]{4}").Draw(t, "id"), Match: Match{Name: rapid.SampledFrom([]string{"a", "b", "card", "?", "*"}).Draw(t, "match")},
			Action: actions().Draw(t, "action"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		owner, err := Shipped().WithOwner(rapid.SliceOfN(rules, 0, 4).Draw(t, "owner"))
		if err != nil {
			t.Fatal(err)
		}
		node := Policy{Rules: rapid.SliceOfN(rules, 0, 4).Draw(t, "node"), Profile: rapid.SampledFrom([]Profile{"", Default, Strict}).Draw(t, "profile")}
		both, err := owner.With(&node)
		if err != nil {
			t.Fatal(err)
		}
		f := Field{Kind: kinds.Draw(t, "kind"), Size: 8, Path: names.Draw(t, "name")}
		f.Names = []string{f.Path}
		before, after := owner.Decide(f), both.Decide(f)
		if Stricter(before.Action, after.Action) != after.Action {
			t.Errorf("%s %s was %s by %s; with the node's rules it is %s by %s", f.Kind, f.Path, before.Action, before.Rule, after.Action, after.Rule)
		}
		if after.Action.For(f.Kind) != after.Action {
			t.Errorf("%s means nothing for a %s", after.Action, f.Kind)
		}
	})
}

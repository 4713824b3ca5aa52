// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestOtherNamesOfTheSameBytes: what a rule withholds does not leave under a name that it does not know.
func TestOtherNamesOfTheSameBytes(t *testing.T) {
	array := value("u.label", target.KindCString, "char [8]", 0, in(rdi))
	array.Capacity, array.Offset = 8, 16
	secret := func(v target.Value) target.Value { v.Path, v.Names = "u.hidden", []string{"u", "hidden"}; return v }
	for _, c := range []struct {
		what          string
		hidden, other target.Value
		action, want  string // of the hidden one, and what becomes of the other
	}{
		{"a union's member", value("", target.KindUint, "uint64", 8, in(rdi, 8)), value("u.n", target.KindUint, "uint32", 4, in(rdi, 12)), "drop", "drop"},
		{"the one before it", value("", target.KindUint, "uint32", 4, in(rdi, 8)), value("u.n", target.KindUint, "uint32", 4, in(rdi, 4)), "drop", "keep"},
		{"the one behind it", value("", target.KindUint, "uint32", 4, in(rdi, 8)), value("u.n", target.KindUint, "uint32", 4, in(rdi, 12)), "drop", "keep"},
		{"behind another pointer", value("", target.KindUint, "uint32", 4, in(rdi, 8)), value("u.n", target.KindUint, "uint32", 4, in(rdi, 0, 8)), "drop", "keep"},
		{"of another register", value("", target.KindUint, "uint32", 4, in(rdi, 8)), value("u.n", target.KindUint, "uint32", 4, in(rsi, 8)), "drop", "keep"},
		{"in the same register", value("", target.KindUint, "uint32", 4, in(rdi)), value("u.n", target.KindUint, "uint16", 2, in(rdi)), "drop", "drop"},
		{"a string by another name", text("", in(rdi), in(rsi)), text("u.s", in(rdi), in(rsi)), "length", "length"},
		{"a byte of a string", text("", in(rdi, 8), in(rdi, 16)), value("u.n", target.KindUint, "uint8", 1, in(rdi, 8, 3)), "digest", "digest"},
		{"the end of a string", text("", in(rdi, 8), in(rdi, 16)), value("u.n", target.KindUint, "uint8", 1, in(rdi, 8, 3)), "suffix:4", "drop"},
		{"an array around a number", array, value("u.n", target.KindUint, "uint32", 4, in(rdi, 20)), "digest", "digest"},
		{"a number behind an array", array, value("u.n", target.KindUint, "uint32", 4, in(rdi, 24)), "digest", "keep"},
		{"the stricter of two", value("", target.KindUint, "uint64", 8, in(rdi, 8)), value("u.n", target.KindUint, "uint64", 8, in(rdi, 8)), "bucket", "bucket"},
	} {
		hidden := secret(c.hidden)
		set := rules(t, "  - {id: hide, name: hidden, action: '"+c.action+"'}\n  - {id: rest, path: 'u.*', name: '?', action: keep}\n")
		for _, values := range [][]target.Value{{hidden, c.other}, {c.other, hidden}} {
			p := compile(t, request("", paths(values)...), checkout(values...), set)
			for i := range p.Fields {
				f := &p.Fields[i]
				if f.Path != c.other.Path {
					continue
				}
				if f.Action != c.want {
					t.Errorf("%s: %s leaves by %s; want %s\n%s", c.what, f.Path, f.Action, c.want, p.Listing())
				}
				if c.want == "keep" {
					continue
				}
				// The same with a plan that somebody else made.
				bad := clone(t, p)
				f = &bad.Fields[i]
				f.Action, f.Rule, f.Missing = "keep", "rest", ""
				kept := compile(t, request("", c.other.Path), checkout(c.other), set)
				lone := clone(t, kept)
				lone.Withheld = bad.Withheld
				if err := lone.Verify(); err == nil || !strings.Contains(err.Error(), "has bytes of u.hidden") {
					t.Errorf("%s: a plan that keeps %s is taken: %v", c.what, f.Path, err)
				}
			}
		}
	}
}

// TestConditionsOnTheSameBytes: nor does a condition ask for them.
func TestConditionsOnTheSameBytes(t *testing.T) {
	hidden, other := value("u.hidden", target.KindUint, "uint64", 8, in(rdi, 8)), value("u.n", target.KindUint, "uint64", 8, in(rdi, 8))
	set := rules(t, "  - {id: hide, name: hidden, action: drop}\n  - {id: rest, name: n, action: keep}\n")
	other.Condition = true
	_, err := plan.Compile(request("u.n > 10", "u.hidden"), checkout(hidden, other), set)
	if err == nil || !strings.Contains(err.Error(), "redacted (drop, rule hide)") {
		t.Errorf("a condition on the bytes of a dropped value: %v", err)
	}
}

// TestUnionMembers: what a rule says of one member of a union holds for the others.
func TestUnionMembers(t *testing.T) {
	n := value("u.n", target.KindUint, "uint32", 4, in(rdi, 8))
	n.Aliases = []target.Alias{{Names: []string{"u", "parts", "password"}, TypeName: "char [4]"}, {Names: []string{"u", "flags"}, TypeName: "unsigned int"}}
	p := compile(t, request("", "u.n"), checkout(n), rules(t, "  - {id: rest, path: 'u.*', action: keep}\n"))
	if f := field(t, p, "u.n"); f.Action != "drop" || f.Rule != "names/secret" || f.Detail != "the same bytes as u.parts.password" {
		t.Errorf("a member beside a password leaves by %s (%s, %s)", f.Action, f.Rule, f.Detail)
	}
	n.Aliases = n.Aliases[1:]
	p = compile(t, request("", "u.n"), checkout(n), rules(t, "  - {id: rest, path: 'u.*', action: keep}\n"))
	if f := field(t, p, "u.n"); f.Action != "keep" || f.Detail != "" {
		t.Errorf("a member beside flags leaves by %s (%s)", f.Action, f.Detail)
	}
}

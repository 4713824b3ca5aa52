// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"encoding/json"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// FuzzCompile: a target that anybody wrote is refused, or becomes a plan that Verify accepts and that emits nothing under the
// name of a secret.
func FuzzCompile(f *testing.F) {
	seed := func(where string, t *target.Target) {
		data, err := json.Marshal(t)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(where, data)
	}
	seed("", checkout(text("user.Password", in(rcx), in(rdx)), value("qty", target.KindInt, "int", 8, in(r8))))
	seed("qty > 10", checkout(value("qty", target.KindUint, "uint32", 4, in(rdi, 8, -16))))
	f.Add("", []byte(`{"identity":{"pid":1}}`))
	f.Fuzz(func(t *testing.T, where string, data []byte) {
		var tgt target.Target
		if json.Unmarshal(data, &tgt) != nil {
			return
		}
		p, err := plan.Compile(request(where), &tgt, redact.Shipped())
		if err != nil {
			return
		}
		if err := p.Verify(); err != nil {
			t.Fatal(err)
		}
		if p.MaxRecordBytes() > plan.MaxOut {
			t.Errorf("a record of %d bytes", p.MaxRecordBytes())
		}
		for i, field := range p.Fields {
			if names, err := probe.ParsePath(field.Path); err == nil && names[len(names)-1] == "password" && field.Emits {
				t.Errorf("a password leaves:\n%s", p.Listing())
			}
			if field.Emits == (p.Reads(i) == "") {
				t.Errorf("%s is read from %q", field.Path, p.Reads(i))
			}
		}
		if p.Listing() == "" || p.Digest() == "" {
			t.Error("a plan without a listing or digest")
		}
	})
}

// FuzzVerify: a plan that anybody wrote is refused or accepted, and can be printed either way.
func FuzzVerify(f *testing.F) {
	p, err := plan.Compile(request("qty > 10"), checkout(value("qty", target.KindUint, "uint32", 4, in(rdi, 8, -16))), redact.Shipped())
	if err != nil {
		f.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p plan.Plan
		if json.Unmarshal(data, &p) != nil {
			return
		}
		_ = p.Verify()
		for i := range p.Fields {
			_ = p.Reads(i)
		}
		if p.Listing() == "" {
			t.Error("no listing")
		}
	})
}

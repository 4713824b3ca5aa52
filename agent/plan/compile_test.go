// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/plan/plantest"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestConditions runs conditions on one value of each type.
func TestConditions(t *testing.T) {
	label := value("label", target.KindCString, "char [8]", 8, in(rdi))
	label.Capacity = 8
	values := []target.Value{
		value("i8", target.KindInt, "int8", 1, in(rax)), value("u8", target.KindUint, "uint8", 1, in(rax)),
		value("i64", target.KindInt, "int64", 8, in(rax)), value("u64", target.KindUint, "uint64", 8, in(rax)),
		value("ok", target.KindBool, "bool", 1, in(rbx)), value("far", target.KindInt, "int32", 4, in(rdx, 8)),
		text("sku", in(rdi), in(rsi)), label, value("n", target.KindLength, "[]int", 8, in(rsi)),
	}
	const heap = 0xc000001000
	hit := plantest.Hit{Memory: plantest.Memory{heap: []byte("teapot\x00\x00\xfb\xff\xff\xff")}}
	hit.Registers[rax] = ^uint64(0) // -1
	hit.Registers[rbx] = 0xff00     // false, whatever stands above
	hit.Registers[rdx], hit.Registers[rdi], hit.Registers[rsi] = heap, heap, 6
	set := rules(t, "  - {name: sku, action: keep}\n  - {name: label, action: keep}\n  - {name: '?64', action: keep}\n")
	for where, want := range map[string]bool{
		"i8 == -1": true, "i8 < 0": true, "i8 > 0": false, "i8 >= -1": true, "i8 != -1": false, "i8 == 127": false,
		"u8 == 255": true, "u8 < 0": false, "u8 > 0": true, "u8 <= 255": true,
		"i64 == -1": true, "i64 < -9223372036854775808": false, "u64 == 18446744073709551615": true, "u64 >= 9223372036854775808": true,
		"ok == true": false, "ok == false": true, "ok != true": true, "ok != false": false,
		"far == -5": true, "far < -5": false, "n == 6": true, "n > 6": false,
		`sku == "teapot"`: true, `sku != "teapot"`: false, `sku == "teapo"`: false, `sku != "teapo"`: true, `sku == "teapox"`: false, `sku == ""`: false,
		`label == "teapot"`: true, `label != "teapot"`: false, `label == "tea"`: false, `label == ""`: false,
		`i8 < 0 && sku == "teapot" && ok == false`: true, `i8 < 0 && ok == true`: false, `i8 > 0 && ok == false`: false,
	} {
		p := compile(t, request(where, paths(values)...), checkout(values...), set)
		if _, got := plantest.Evaluate(p, &hit); got != want {
			t.Errorf("%s: %v\n%s", where, got, p.Listing())
		}
	}
	hit.Registers[rdx], hit.Registers[rdi] = 0, 1
	for _, where := range []string{"far == -5", "far != -5", `sku == "teapot"`, `label == "x"`, `label != "x"`} {
		p := compile(t, request(where, paths(values)...), checkout(values...), set)
		if _, holds := plantest.Evaluate(p, &hit); holds {
			t.Errorf("%s holds of a value that cannot be read", where)
		}
	}
}

func paths(values []target.Value) []string {
	var list []string
	for _, v := range values {
		list = append(list, v.Path)
	}
	return list
}

// TestRequestedRedaction: a requester makes things stricter, never weaker, for a value and all below it.
func TestRequestedRedaction(t *testing.T) {
	values := []target.Value{
		text("user.Email", in(rax, 16), in(rbx)), text("user.Password", in(rax, 32), in(rbx)), text("username", in(rax, 48), in(rbx)),
		text("sku", in(rax, 64), in(rbx)), value("qty", target.KindInt, "int", 8, in(rcx)), text("card", in(rax, 80), in(rbx)),
	}
	spec := request("", paths(values)...)
	spec.Redact = []probe.Redaction{
		{Path: "user", Action: "length"}, {Path: "user.Password", Action: "keep"}, {Path: "card", Action: "keep"}, {Path: "sku", Action: "prefix:3"},
		{Path: "sku", Action: "suffix:3"}, {Path: "qty", Action: "suffix:1"},
	}
	p := compile(t, spec, checkout(values...), rules(t, "  - {name: sku, action: keep}\n"))
	for path, want := range map[string]string{
		"user.Email": "length request", "user.Password": "drop names/secret", "username": "detect:all default/string", "sku": "digest request",
		"qty": "drop request", "card": "drop names/identifier",
	} {
		if f := field(t, p, path); f.Action+" "+f.Rule != want {
			t.Errorf("%s is %s by %s; want %s", path, f.Action, f.Rule, want)
		}
	}
	if f := field(t, p, "qty"); !strings.Contains(f.Detail, "suffix:1 means nothing") {
		t.Errorf("nothing says why qty is dropped: %q", f.Detail)
	}
}

// TestOneValueForSeveral: an argument may stand for several values below it.
func TestOneValueForSeveral(t *testing.T) {
	values := []target.Value{
		text("user.Email", in(rax), in(rbx)), value("user.Limit", target.KindInt, "int64", 8, in(rcx)), value("qty", target.KindInt, "int", 8, in(rdx)),
	}
	p := compile(t, request("", "user", "qty"), checkout(values...), redact.Shipped())
	if len(p.Fields) != 3 {
		t.Errorf("%d fields", len(p.Fields))
	}
	if _, err := plan.Compile(request("", "use", "qty"), checkout(values...), redact.Shipped()); err == nil {
		t.Error("user.Email answers a request for use")
	}
}

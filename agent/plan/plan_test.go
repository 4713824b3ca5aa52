// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// DWARF numbers of the registers that Go passes arguments in, and C.
const (
	rax, rdx, rcx, rbx, rsi, rdi = 0, 1, 2, 3, 4, 5
	r8, r14                      = 8, 14
)

func in(register int, offsets ...int64) target.Location {
	return target.Location{Register: register, Offsets: offsets}
}

func value(path string, kind target.Kind, typeName string, size int, data target.Location) target.Value {
	return target.Value{Path: path, Names: strings.Split(path, "."), Kind: kind, TypeName: typeName, Size: size, Data: data}
}

func text(path string, data, length target.Location) target.Value {
	v := value(path, target.KindString, "string", 16, data)
	v.Length = length
	return v
}

// checkout is main.(*Cart).Checkout(ctx, user *User, card string, qty int, total int64) of a Go program.
func checkout(values ...target.Value) *target.Target {
	return &target.Target{
		Identity: target.Identity{
			PID: 4711, StartTicks: 123456, Comm: "shop", Path: "/srv/shop", BuildID: "7d9d3a0b", Device: 2049, Inode: 4242, Size: 8 << 20,
			MtimeNs: 1, Language: "go1.26.8", Arch: "amd64",
		},
		Function: target.Function{Name: "main.(*Cart).Checkout", Address: 0x49f880, Size: 0x1c0},
		Sites: []target.Site{{
			Address: 0x49f8af, FileOffset: 0x9f8af, RuntimeAddress: 0x49f8af, Bytes: []byte{0x48, 0x89, 0xd8}, Where: "after the stack check",
		}},
		Values: values,
		GoroutineID: &target.Value{
			Path: "goid", Names: []string{"goid"}, Kind: target.KindUint, TypeName: "uint64", Size: 8, Data: in(r14, 0x98),
		},
	}
}

func request(where string, paths ...string) *probe.Spec {
	return &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: 4711}, Function: "Cart.Checkout", Arguments: paths, Where: where,
		Reason: "INC-4211 checkout 500s",
	}
}

func rules(t *testing.T, yaml string) *redact.Ruleset {
	t.Helper()
	list, err := redact.ParsePolicy([]byte("version: 1\nrules:\n" + yaml))
	if err != nil {
		t.Fatal(err)
	}
	set, err := redact.Shipped().WithOwnerPolicy(list)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// shop is the request that the golden files are about: values that share their way, a condition, every kind of decision.
func shop(t *testing.T) (*probe.Spec, *target.Target, *redact.Ruleset) {
	email := text("user.Email", in(rcx, 0), in(rcx, 8))
	password := text("user.Password", in(rcx, 0x10), in(rcx, 0x18))
	nick := text("user.profile.Nick", in(rcx, 0x28, 0x10), in(rcx, 0x28, 0x18))
	city := text("user.profile.City", in(rcx, 0x28, 0x20), in(rcx, 0x28, 0x28))
	card := text("card", in(rdi), in(rsi))
	total := value("total", target.KindInt, "int64", 8, in(r8+1))
	items := value("c.Items", target.KindLength, "[]main.Item", 8, in(rax, 8))
	discount := value("discount", target.KindFloat, "float64", 8, target.Location{})
	discount.Missing, discount.Detail = event.FloatReg, "the kernel does not show XMM to a probe"
	qty := value("qty", target.KindInt, "int", 8, in(r8))
	qty.Condition = true
	spec := request(`qty > 10 && user.profile.City != "Ulm"`,
		"user.Email", "user.Password", "user.profile.Nick", "user.profile.City", "card", "total", "c.Items", "discount")
	spec.Redact = []probe.Redaction{{Path: "user.profile.Nick", Action: "drop"}}
	spec.Limits = probe.Limits{MaxHits: 100, Sample: 10}
	set := rules(t, `
  - {id: payments/card, name: card, action: "suffix:4"}
  - {id: shop/city, path: "*.city", action: keep}
`)
	return spec, checkout(email, password, nick, city, card, total, items, discount, qty), set
}

func compile(t *testing.T, spec *probe.Spec, tgt *target.Target, set *redact.Ruleset) *plan.Plan {
	t.Helper()
	p, err := plan.Compile(spec, tgt, set)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestListing(t *testing.T) {
	char := value("name", target.KindCString, "char [16]", 16, in(rdi))
	char.Offset, char.Capacity = 24, 16
	path := value("path", target.KindCString, "const char *", 8, in(rsi))
	flags := value("flags", target.KindUint, "unsigned short", 2, in(rdx))
	next := value("entry.next.size", target.KindUint, "unsigned int", 4, in(rdi, 0x20, -4))
	ok := value("ok", target.KindBool, "_Bool", 1, target.Location{Register: rcx, Shift: 4})
	c := checkout(char, path, flags, next, ok)
	c.GoroutineID, c.Identity.Language, c.Function.Name = nil, "c17", "inventory_reserve"
	cSpec := request(`path == "/etc/hosts" && flags < 0x10 && ok == true`, "name", "path", "flags", "entry.next.size", "ok")

	arm := checkout(text("sku", in(1), in(2)), value("qty", target.KindInt, "int32", 4, in(31, 16)))
	arm.Identity.Arch = "arm64"
	arm.GoroutineID = nil

	spec, tgt, set := shop(t)
	for name, p := range map[string]*plan.Plan{
		"go":    compile(t, spec, tgt, set),
		"c":     compile(t, cSpec, c, rules(t, `  - {path: "path", action: keep}`+"\n"+`  - {path: name, action: "prefix:3"}`)),
		"arm64": compile(t, request("", "sku", "qty"), arm, redact.Shipped()),
		"empty": compile(t, request(""), checkout(), redact.Shipped()),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name+".listing", p.Listing()) })
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s\nwant:\n%s", file, got, want)
	}
}

func TestReads(t *testing.T) {
	p := compile(t, request("", "email", "pair", "name", "n", "password"), checkout(
		text("email", in(rax, 0x18, 0x40), in(rax, 0x18, 0x48)),
		text("pair", in(rdi), in(rsi)),
		func() target.Value {
			v := value("name", target.KindCString, "char [16]", 16, in(rdi))
			v.Offset, v.Capacity = 24, 16
			return v
		}(),
		value("n", target.KindInt, "int16", 2, target.Location{Register: rbx, Shift: 4}),
		text("password", in(rcx), in(rdx)),
	), redact.Shipped())
	for i, want := range []string{"rax → +0x18 → +0x40", "rdi, rsi", "rdi → +0x18", "rbx >> 32", ""} {
		if got := p.Reads(i); got != want {
			t.Errorf("%s is read from %q; want %q", p.Fields[i].Path, got, want)
		}
	}
	if p.Reads(-1) != "" || p.Reads(99) != "" {
		t.Error("a field that is not there is read from somewhere")
	}
}

func TestDroppedValuesHaveNoOp(t *testing.T) {
	spec, tgt, set := shop(t)
	p := compile(t, spec, tgt, set)
	var emitted, fields int
	for _, op := range p.Ops {
		if op.Code == plan.OpLoad && (op.Off == 0x10 || op.Off == 0x18) && op.Src == 0 {
			t.Errorf("the plan reads the password:\n%s", p.Listing())
		}
		if op.Code == plan.OpEmit || op.Code == plan.OpBytes || op.Code == plan.OpCStr {
			emitted++
		}
	}
	for _, f := range p.Fields {
		if f.Emits {
			fields++
		}
		if f.Action == "drop" && (f.Emits || f.Missing != event.Redacted) {
			t.Errorf("%s is dropped by %s, and emits is %v, missing %q", f.Path, f.Rule, f.Emits, f.Missing)
		}
	}
	if emitted != fields+1 { // the goroutine's number
		t.Errorf("%d ops emit for %d fields", emitted, fields)
	}
}

func TestCompileRefuses(t *testing.T) {
	spec := func(change func(*probe.Spec)) func(*probe.Spec, *target.Target) {
		return func(s *probe.Spec, _ *target.Target) { change(s) }
	}
	tgt := func(change func(*target.Target)) func(*probe.Spec, *target.Target) {
		return func(_ *probe.Spec, t *target.Target) { change(t) }
	}
	where := func(text string) func(*probe.Spec, *target.Target) {
		return spec(func(s *probe.Spec) { s.Where = text })
	}
	many := func(n int, draw func(i int) target.Value) func(*probe.Spec, *target.Target) {
		return func(s *probe.Spec, t *target.Target) {
			s.Arguments, t.Values = nil, nil
			for i := range n {
				v := draw(i)
				s.Arguments, t.Values = append(s.Arguments, v.Path), append(t.Values, v)
			}
		}
	}
	name := func(i int) string { return fmt.Sprintf("v%d", i) }
	for what, c := range map[string]struct {
		change func(*probe.Spec, *target.Target)
		code   string
		says   []string
	}{
		"condition on a secret":          {where(`password == "x"`), problem.InvalidArgument, []string{"password", "names/secret", "drop"}},
		"condition on a searched string": {where(`sku == "x"`), problem.InvalidArgument, []string{"sku", "default/string", "detect:all"}},
		"condition on what the requester redacts": {func(s *probe.Spec, _ *target.Target) {
			s.Where, s.Redact = "qty > 1", []probe.Redaction{{Path: "qty", Action: "digest"}}
		}, problem.InvalidArgument, []string{"qty", "request"}},
		"condition on what is not there":    {where("price > 1"), problem.Internal, []string{"price"}},
		"condition on what cannot be read":  {where("gone > 1"), problem.FailedPrecondition, []string{"gone", event.OptimizedOut}},
		"integer compared with a string":    {where(`qty == "1"`), problem.InvalidArgument, []string{"qty", "integer"}},
		"boolean compared with an integer":  {where("ok == 1"), problem.InvalidArgument, []string{"ok", "true or false"}},
		"string compared with an integer":   {where("kept == 1"), problem.InvalidArgument, []string{"kept", "string"}},
		"float compared":                    {where("price_f == 1"), problem.InvalidArgument, []string{"price_f", "only integers"}},
		"literal too large for the type":    {where("small == 128"), problem.InvalidArgument, []string{"int8"}},
		"literal too small for the type":    {where("small == -129"), problem.InvalidArgument, []string{"int8"}},
		"negative for an unsigned type":     {where("flags == -1"), problem.InvalidArgument, []string{"uint16"}},
		"string longer than its array":      {where(`label == "12345678"`), problem.InvalidArgument, []string{"at most 7"}},
		"NUL in a C string":                 {where(`label == "a\x00b"`), problem.InvalidArgument, []string{"NUL"}},
		"condition with a grammar mistake":  {where("qty >"), problem.InvalidArgument, []string{"--where"}},
		"redaction of what is not captured": {spec(func(s *probe.Spec) { s.Redact = []probe.Redaction{{Path: "card", Action: "drop"}} }), problem.InvalidArgument, []string{"--redact", "card"}},
		"a request that is wrong":           {spec(func(s *probe.Spec) { s.Reason = "" }), problem.InvalidArgument, []string{"--reason"}},
		"a target that is wrong":            {tgt(func(t *target.Target) { t.Sites = nil }), problem.Internal, []string{"sites"}},
		"a value that was not asked for":    {tgt(func(t *target.Target) { t.Values[0], t.Values[1] = t.Values[1], t.Values[0] }), problem.Internal, []string{"asked for"}},
		"a value left out":                  {spec(func(s *probe.Spec) { s.Arguments = append(s.Arguments, "more") }), problem.Internal, []string{"more"}},
		"a name twice in a condition": {func(s *probe.Spec, t *target.Target) {
			again := t.Values[0]
			again.Condition = true
			s.Where, t.Values = "qty > 1", append(t.Values, again)
		}, problem.InvalidArgument, []string{"more than one"}},
		"too many steps": {many(31, func(i int) target.Value {
			return value(name(i), target.KindInt, "int", 8, in(rax, int64(8*i), 8))
		}), problem.InvalidArgument, []string{"--arg v", "64 steps"}},
		"a record too long": {func(s *probe.Spec, t *target.Target) {
			many(10, func(int) target.Value { return text("kept", in(rax), in(rbx)) })(s, t)
			for i := range t.Values {
				t.Values[i].Path, t.Values[i].Names = name(i)+".kept", []string{name(i), "kept"}
				s.Arguments[i] = t.Values[i].Path
			}
			s.Limits.ValueBytes = 4096
		}, problem.InvalidArgument, []string{"--arg v3.kept", "bytes"}},
	} {
		t.Run(what, func(t *testing.T) {
			gone := value("gone", target.KindInt, "int", 8, target.Location{})
			gone.Missing = event.OptimizedOut
			label := value("label", target.KindCString, "char [8]", 8, in(rdi))
			label.Capacity = 8
			values := []target.Value{
				value("qty", target.KindInt, "int", 8, in(rbx)), text("sku", in(rcx), in(rdi)), text("kept", in(rcx, 8), in(rdi)),
				text("password", in(rcx, 24), in(rdi)), value("ok", target.KindBool, "bool", 1, in(rsi)), gone,
				value("small", target.KindInt, "int8", 1, in(rsi)), value("flags", target.KindUint, "uint16", 2, in(rsi)),
				value("price_f", target.KindFloat, "float64", 8, in(rsi, 8)), label,
			}
			s, tg := request(""), checkout(values...)
			for _, v := range values {
				s.Arguments = append(s.Arguments, v.Path)
			}
			c.change(s, tg)
			p, err := plan.Compile(s, tg, rules(t, "  - {name: kept, action: keep}\n  - {name: label, action: keep}\n"))
			if err == nil {
				t.Fatalf("compiled:\n%s", p.Listing())
			}
			wrong, ok := errors.AsType[*problem.Error](err)
			if !ok || wrong.Code != c.code {
				t.Errorf("%v: code %v; want %s", err, wrong, c.code)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

// TestSlots needs as many registers at once as there are slots, and one more.
func TestSlots(t *testing.T) {
	// Each of 15 registers is emitted as 8 bytes and, after all the others, as 4; two more are compared first and emitted last.
	s, tg := request("r15 > 0"), checkout()
	tg.GoroutineID = nil
	add := func(name string, size, register int) {
		s.Arguments = append(s.Arguments, name)
		tg.Values = append(tg.Values, value(name, target.KindInt, "int", size, in(register)))
	}
	for _, size := range []int{8, 4} {
		for register := range 15 {
			add(fmt.Sprintf("r%d_%d", register, size), size, register)
		}
	}
	add("r15", 8, 15)
	add("r16", 8, 16)
	p := compile(t, s, tg, redact.Shipped())
	registers := 0
	for _, op := range p.Ops {
		if op.Code == plan.OpReg {
			registers++
		}
	}
	if registers != 17 {
		t.Errorf("%d registers are read; each of 17 once is enough:\n%s", registers, p.Listing())
	}
	s.Where += " && r16 > 0"
	_, err := plan.Compile(s, tg, redact.Shipped())
	if err == nil || !strings.Contains(err.Error(), "--arg r14_8: ") || !strings.Contains(err.Error(), "16 addresses at once") {
		t.Errorf("17 registers at once: %v", err)
	}
}

func TestDigest(t *testing.T) {
	spec, tgt, set := shop(t)
	first := compile(t, spec, tgt, set)
	if again := compile(t, spec, tgt, set); again.Digest() != first.Digest() {
		t.Error("the same request has two digests")
	}
	data, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	var read plan.Plan
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	if read.Digest() != first.Digest() {
		t.Error("a plan has another digest after it was written and read")
	}
	seen := map[string]string{first.Digest(): "nothing"}
	for what, change := range map[string]func(){
		"the time to live": func() { spec.Limits.TTL = time.Minute },
		"the condition":    func() { spec.Where = "qty > 11" },
		"the process":      func() { tgt.Identity.PID++ },
		"the site":         func() { tgt.Sites[0].FileOffset++ },
		"the place":        func() { tgt.Values[0].Data.Offsets[0] += 8 },
		"the redaction":    func() { spec.Redact[0].Action = "digest" },
	} {
		change()
		d := compile(t, spec, tgt, set).Digest()
		if other, known := seen[d]; known {
			t.Errorf("a change of %s has the digest of a change of %s", what, other)
		}
		seen[d] = what
	}
}

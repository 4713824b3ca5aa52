// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

const (
	goTarget = "test/targets/gofuncs"
	cTarget  = "test/targets/cfuncs/main.c"
)

// mapped adds a map of the whole file to an input, as if a process ran it.
func mapped(in Input) Input {
	in.Maps = mapOf(in.Identity, "r-xp")
	return in
}

// mapOf is a line of /proc/PID/maps for all of a file.
func mapOf(id target.Identity, mode string) []byte {
	major, minor := id.Device>>8&0xfff|id.Device>>32&^0xfff, id.Device&0xff|id.Device>>12&0xffffff00
	return fmt.Appendf(nil, "7000000000-7fff000000 %s 00000000 %x:%x %d %s\n", mode, major, minor, id.Inode, id.Path)
}

func TestFind(t *testing.T) {
	goInput := mapped(inputOfFile(t, testkit.BuildGo(t, goTarget)))
	cInput := mapped(inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g")))
	for _, c := range []struct {
		in        Input
		function  string
		want      string // the function's name, or the problem's code
		says      string
		candidate string
	}{
		{in: goInput, function: "main.(*User).Greet", want: "main.(*User).Greet"},
		{in: goInput, function: "(*User).Greet", want: "main.(*User).Greet"},
		{in: goInput, function: "User.Greet", want: "main.(*User).Greet"},
		{in: goInput, function: "Greet", want: "main.(*User).Greet"},
		{in: goInput, function: "main.User.Copy", want: "main.User.Copy"},
		{in: goInput, function: "User.Copy", want: "main.User.Copy"},
		{in: goInput, function: "Generic", want: "main.Generic[go.shape.string]"},
		{in: goInput, function: "main.Generic[go.shape.string]", want: "main.Generic[go.shape.string]"},
		{in: goInput, function: "main.go:Greet", want: "main.(*User).Greet"},
		{in: goInput, function: "runtime.memmove", want: "runtime.memmove"},
		{in: goInput, function: "reet", want: problem.NotFound, candidate: "main.(*User).Greet"},
		{in: goInput, function: "User.Gret", want: problem.NotFound, says: `no function "User.Gret" in gofuncs; the nearest: main.(*User).Greet`, candidate: "main.(*User).Greet"},
		{in: goInput, function: "String", want: problem.InvalidArgument, says: "functions of gofuncs: name one of them"},
		{in: goInput, function: "Inlined", want: problem.FailedPrecondition, says: "it was inlined into main.round (main.go:"},
		{in: goInput, function: "", want: problem.NotFound},
		{in: goInput, function: strings.Repeat("(*", 500), want: problem.NotFound},
		{in: cInput, function: "integers", want: "integers"},
		{in: cInput, function: "cfuncs/main.c:integers", want: "integers"},
		{in: cInput, function: "other.c:integers", want: problem.NotFound},
		{in: cInput, function: "tegers", want: problem.NotFound, candidate: "integers"},
		{in: cInput, function: "inlined", want: problem.FailedPrecondition, says: "build it with __attribute__((noinline))"},
	} {
		got, err := Resolve(c.in, &probe.Spec{Function: c.function})
		if err == nil {
			if got.Function.Name != c.want {
				t.Errorf("%q is %s, want %s", c.function, got.Function.Name, c.want)
			}
			continue
		}
		p := problem.Of(err)
		if p.Code != c.want || !strings.Contains(p.Message, c.says) || c.candidate != "" && !slices.Contains(p.Candidates, c.candidate) || len(p.Candidates) > maxCandidates {
			t.Errorf("%q: %s %s %q, want %s %q %q", c.function, p.Code, p.Message, p.Candidates, c.want, c.says, c.candidate)
		}
	}
}

func TestTarget(t *testing.T) {
	in := mapped(inputOfFile(t, testkit.BuildGo(t, goTarget)))
	got, err := Resolve(in, &probe.Spec{Function: "Framed"})
	if err != nil {
		t.Fatal(err)
	}
	s := got.Sites[0]
	if s.Where != "after the stack check" || s.Address <= got.Function.Address || s.RuntimeAddress != 0x7000000000+s.FileOffset || len(s.Bytes) == 0 {
		t.Errorf("%+v", s)
	}
	got, err = Resolve(in, &probe.Spec{Function: "User.Greet", Where: `times > 7 && u.Contact.Email != "x"`})
	if err != nil {
		t.Fatal(err)
	}
	if want := "func (u *main.User) Greet(times int)"; got.Function.Signature != want {
		t.Errorf("signature %q, want %q", got.Function.Signature, want)
	}
	if got.Identity.Arch != runtime.GOARCH || !strings.HasPrefix(got.Identity.Language, "go1.") || got.Identity.BuildID == "" {
		t.Errorf("%+v", got.Identity)
	}
	// A leaf has no stack check; on arm64 it begins with what the assembler made of one instruction.
	if s := got.Sites[0]; s.Where != "entry"+map[string]string{"arm64": behindRepeated}[runtime.GOARCH] || s.Address-got.Function.Address > 8 {
		t.Errorf("%+v", s)
	}
	var paths []string
	for _, v := range got.Values {
		if v.Missing != "" {
			t.Errorf("%s is missing: %s (%s)", v.Path, v.Missing, v.Detail)
		}
		path := v.Path
		if v.Condition {
			path = "where " + path
		}
		paths = append(paths, path)
	}
	if want := []string{"u.Name", "u.Age", "u.Admin", "times", "where u.Contact.Email"}; !slices.Equal(paths, want) {
		t.Errorf("values %q, want %q", paths, want)
	}
	if g := got.GoroutineID; g == nil || g.Data.Register != map[string]int{"amd64": 14, "arm64": 28}[runtime.GOARCH] || len(g.Data.Offsets) != 1 {
		t.Errorf("the goroutine's number is at %+v", g)
	}
}

// TestMissing asks for what cannot be read: each says why.
func TestMissing(t *testing.T) {
	goInput := mapped(inputOfFile(t, testkit.BuildGo(t, goTarget)))
	cInput := mapped(inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g")))
	for _, c := range []struct {
		in             Input
		function, path string
		missing        string // or the code of the problem
	}{
		{goInput, "Opaque", "i", event.Unsupported},
		{goInput, "Opaque", "m", event.Unsupported},
		{goInput, "Opaque", "c", event.Unsupported},
		{goInput, "Opaque", "f", event.Unsupported},
		{goInput, "Opaque", "x", event.FloatReg},
		{goInput, "Opaque", "i.x", event.Unsupported},
		{goInput, "Text", "list.0", event.Unsupported},
		{goInput, "Text", "len(s)", ""},
		{goInput, "Text", "s.len", ""},
		{goInput, "Greet", "u", ""},
		{goInput, "Greet", "u.Contact", ""},
		{goInput, "Greet", "u.Level", ""},
		{goInput, "Greet", "u.Rank", event.Unsupported},
		{goInput, "Greet", "len(u.Age)", problem.NotFound},
		{goInput, "Greet", "u.Nam", problem.NotFound},
		{goInput, "Greet", "u.Name.x", problem.NotFound},
		{goInput, "Greet", "n", problem.NotFound},
		{goInput, "Greet", "u..x", problem.InvalidArgument},
		{goInput, "ByValue", "p.Weight", event.FloatReg},
		{goInput, "OnStack", "s", map[string]string{"amd64": event.OptimizedOut}[runtime.GOARCH]}, // arm64 has a register for it
		{cInput, "structs", "c.flag", event.Unsupported},
		{cInput, "structs", "c.home", event.Unsupported},
		{cInput, "structs", "c.rate", ""},
		{cInput, "with_float", "x", event.FloatReg},
		{cInput, "in_memory", "l.cells", event.Unsupported},
		{cInput, "enumeration", "pp", ""},
		{cInput, "enumeration", "p.x", problem.NotFound},
	} {
		got, err := Resolve(c.in, &probe.Spec{Function: c.function, Arguments: []string{c.path}})
		if err != nil {
			if p := problem.Of(err); p.Code != c.missing {
				t.Errorf("%s of %s: %v, want %q", c.path, c.function, err, c.missing)
			}
			continue
		}
		v := got.Values[0]
		if v.Missing != c.missing || (v.Missing == "") != (v.Detail == "") || v.Path != c.path {
			t.Errorf("%s of %s: %+v, want it missing by %q", c.path, c.function, v, c.missing)
		}
	}
}

// TestManyValues has more fields than one plan takes: no parameter is left out for another one's.
func TestManyValues(t *testing.T) {
	var fields, use strings.Builder
	for i := range 100 {
		fmt.Fprintf(&fields, "int f%d;\n", i)
	}
	fmt.Fprintf(&use, "struct s {%s};\n__attribute__((noinline)) int f(struct s *a, int n, struct s *b) { return a->f0 + n + b->f99; }\nstruct s x; int main(int n, char **v) { (void)v; return f(&x, n, &x); }\n", fields.String())
	source := filepath.Join(t.TempDir(), "many.c")
	if err := os.WriteFile(source, []byte(use.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	in := mapped(inputOfFile(t, testkit.BuildC(t, "many", []string{source}, "-O1", "-g")))
	got, err := Resolve(in, &probe.Spec{Function: "f"})
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[string]int)
	for _, v := range got.Values {
		of[v.Names[0]]++
	}
	if len(got.Values) > probe.MaxArguments || of["n"] != 1 || of["a"] < 5 || of["b"] < 5 || len(got.Notes) != 1 {
		t.Errorf("%v, notes %q", of, got.Notes)
	}
}

// TestWithoutDebugInformation probes calls where nothing says what is passed.
func TestWithoutDebugInformation(t *testing.T) {
	for name, exe := range map[string]string{
		"go, stripped": testkit.BuildGo(t, goTarget, "-ldflags=-s -w"),
		"c, symbols":   testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2"),
		"c, exported":  testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-rdynamic", "-s"),
	} {
		in := mapped(inputOfFile(t, exe))
		function := "structs"
		if strings.HasPrefix(name, "go") {
			function = "User.Greet"
		}
		got, err := Resolve(in, &probe.Spec{Function: function})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Sites) != 1 || len(got.Values) != 0 || len(got.Notes) != 1 || got.GoroutineID != nil {
			t.Errorf("%s: %+v", name, got)
		}
		got, err = Resolve(in, &probe.Spec{Function: function, Arguments: []string{"c.id"}})
		if err != nil || got.Values[0].Missing != event.NoDebugInfo {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err = Resolve(in, &probe.Spec{Function: function, Where: "n > 1"}); err == nil || problem.Of(err).Code != problem.FailedPrecondition {
			t.Errorf("%s, with a condition: %v", name, err)
		}
		l, err := Functions(in, function, 10)
		if err != nil || !l.Stripped || l.Matched != 1 {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	in := mapped(inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-s", "-static")))
	_, err := Resolve(in, &probe.Spec{Function: "structs"})
	if p := problem.Of(err); p == nil || p.Code != problem.FailedPrecondition || !strings.Contains(p.Message, "is stripped") {
		t.Errorf("a stripped program: %v", err)
	}
}

// TestMaps has processes that do not map the code as it has to be.
func TestMaps(t *testing.T) {
	in := inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g"))
	other := in.Identity
	other.Inode++
	for name, c := range map[string]struct {
		maps []byte
		says string
	}{
		"no maps":        {nil, "does not map the code"},
		"another file":   {mapOf(other, "r-xp"), "does not map the code"},
		"not executable": {mapOf(in.Identity, "r--p"), "does not map the code"},
		"writable":       {mapOf(in.Identity, "rwxp"), "writable or shared"},
		"shared":         {mapOf(in.Identity, "r-xs"), "writable or shared"},
		"malformed":      {[]byte("one line\n"), "parse maps: line 1"},
	} {
		in.Maps = c.maps
		_, err := Resolve(in, &probe.Spec{Function: "integers"})
		if p := problem.Of(err); p == nil || p.Code != problem.FailedPrecondition || !strings.Contains(p.Message, c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// TestCutShort resolves on executables that end early: one clear problem each.
func TestCutShort(t *testing.T) {
	whole := mapped(inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g")))
	b := make([]byte, whole.Identity.Size)
	if _, err := whole.Exe.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n += 1 + len(b)/50 {
		in := whole
		in.Exe, in.Identity.Size = bytes.NewReader(b[:n]), int64(n)
		_, err := Resolve(in, &probe.Spec{Function: "integers"})
		if p := problem.Of(err); p == nil || p.Code != problem.FailedPrecondition || !strings.HasPrefix(p.Message, "cannot analyse "+in.Identity.Path) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func TestFunctions(t *testing.T) {
	in := inputOfFile(t, testkit.BuildGo(t, goTarget))
	l, err := Functions(in, "user.", 0)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range l.Functions {
		if strings.HasPrefix(f.Name, "main.") {
			lines = append(lines, f.Name+": "+f.Signature+" "+f.Refused)
		}
	}
	want := []string{"main.(*User).Greet: func (u *main.User) Greet(times int) ", "main.User.Copy: func (u main.User) Copy(n int) "}
	if !slices.Equal(lines, want) || l.Stripped || l.Executable != in.Identity.Path {
		t.Errorf("%q of %+v, want %q", lines, l, want)
	}
	for pattern, want := range map[string]int{"": 3, "main.*Funcs": 0, "main.(*User).Greet": 1, "MAIN.SIG": 1, "nothing at all": 0} {
		l, err := Functions(in, pattern, 3)
		if err != nil || len(l.Functions) != want || l.Matched < want {
			t.Errorf("%q: %d functions of %d, %v; want %d", pattern, len(l.Functions), l.Matched, err, want)
		}
	}

	in = inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O1", "-g"))
	l, err = Functions(in, "spin", 0)
	if err != nil || len(l.Functions) != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	f := l.Functions[0]
	if f.Signature != "void spin(char *p, char *e)" || !strings.Contains(f.Refused, "head of a loop") || len(f.Parameters) != 2 || f.Parameters[0] != (Parameter{"p", "char *"}) || f.Line == 0 {
		t.Errorf("%+v", f)
	}
}

// TestTime bounds what a request waits for the analysis of a program of some megabytes.
func TestTime(t *testing.T) {
	in := mapped(inputOfFile(t, testkit.BuildGo(t, "test/targets/shop")))
	best := time.Hour
	for range 3 {
		start := time.Now()
		if _, err := Resolve(in, &probe.Spec{Function: "Cart.Checkout"}); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	t.Logf("%v for %d MiB", best, in.Identity.Size>>20)
	if best > 2*time.Second { // a tenth of that and less, if the machine is idle and the race detector off
		t.Errorf("a request waits %v", best)
	}
}

// FuzzResolve resolves on executables that were changed anywhere: a problem, or a site that the file has.
func FuzzResolve(f *testing.F) {
	for _, flags := range [][]string{{"-O2", "-g", "-Wl,--build-id=none"}, {"-O0", "-gdwarf-4"}} {
		b, err := os.ReadFile(testkit.BuildC(f, "cfuncs", []string{cTarget}, flags...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "structs", "c.home.city", []byte("400000-500000 r-xp 0 0:0 0 \n"))
		f.Add(b, "in_memory", "", []byte("400000-500000 r-xp 0 0:0 0 \n"))
	}
	f.Fuzz(func(t *testing.T, b []byte, function, path string, maps []byte) {
		in := Input{Exe: bytes.NewReader(b), Maps: maps, Identity: target.Identity{Size: int64(len(b))}}
		spec := &probe.Spec{Function: function}
		if path != "" {
			spec.Arguments = []string{path}
		}
		got, err := Resolve(in, spec)
		if err != nil {
			if p, ok := err.(*problem.Error); !ok || p.Code == problem.Internal { //nolint:errorlint // it is the promise: never wrapped
				t.Errorf("%T %v", err, err)
			}
			return
		}
		for _, s := range got.Sites {
			if at := s.FileOffset; at >= uint64(len(b)) || !bytes.HasPrefix(b[at:], s.Bytes) || len(s.Bytes) == 0 {
				t.Errorf("%+v", s)
			}
		}
		for _, v := range got.Values {
			if v.Missing == "" && (v.Data.Register < 0 || v.Data.Register > 15 || len(v.Data.Offsets) > maxLoads+1) {
				t.Errorf("%+v", v)
			}
		}
		if _, err := Functions(in, function, 10); err != nil {
			t.Errorf("it resolves and cannot be listed: %v", err)
		}
	})
}

// TestPromotedFields: a field is redacted alike by whichever path it is asked for, since rules see every name and type on the way.
func TestPromotedFields(t *testing.T) {
	in := mapped(inputOfFile(t, testkit.BuildGo(t, goTarget)))
	rules, err := redact.Shipped().WithCompulsory([]redact.Rule{
		{ID: "test/path", Match: redact.Match{Path: "l.Credentials.High"}, Action: redact.Action{Kind: redact.Length}},
		{ID: "test/promoted", Match: redact.Match{Path: "l.Low"}, Action: redact.Action{Kind: redact.Digest}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, other string
		names       []string
		rule        string
	}{
		{"l.Low", "l.Credentials.Low", []string{"l", "Credentials", "Low"}, redact.RuleSecretName},
		{"l.High", "l.Credentials.High", []string{"l", "Credentials", "High"}, redact.RuleSecretName},
		{"l.Text", "l.Credentials.Text", []string{"l", "Credentials", "Text"}, redact.RuleSecretName},
		{"p.Low", "", []string{"p", "Low"}, redact.RuleSecretName},
		{"l.Name", "", []string{"l", "Name"}, redact.RuleDefaultText},
	} {
		spec := probe.Spec{Function: "main.Check", Arguments: []string{c.path}}
		if c.other != "" {
			spec.Arguments = append(spec.Arguments, c.other)
		}
		found, err := Resolve(in, &spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found.Values {
			if !slices.Equal(v.Names, c.names) || len(v.Types) != len(v.Names) {
				t.Errorf("%s goes by %q of types %q; want %q", v.Path, v.Names, v.Types, c.names)
			}
			if first := found.Values[0].Data; v.Data.Register != first.Register || !slices.Equal(v.Data.Offsets, first.Offsets) {
				t.Errorf("%s is at %+v, %s at %+v", v.Path, v.Data, c.path, first)
			}
			d := rules.Decide(redact.Field{Path: v.Path, Names: v.Names, Types: v.Types, Embedded: v.Embedded, TypeName: v.TypeName, Kind: string(v.Kind)})
			if d.Rule != c.rule {
				t.Errorf("%s is decided by %s; want %s", v.Path, d.Rule, c.rule)
			}
		}
	}
}

// TestUnions: the bytes of a union's member have the names of the others, too, for rules to look at.
func TestUnions(t *testing.T) {
	in := mapped(inputOfFile(t, testkit.BuildC(t, "cfuncs", []string{"test/targets/cfuncs/main.c"}, "-O2", "-g")))
	for path, want := range map[string]string{"c.code": "c.rate float", "c.rate": "c.code int", "c.id": ""} {
		found, err := Resolve(in, &probe.Spec{Function: "structs", Arguments: []string{path}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, a := range found.Values[0].Aliases {
			got += strings.Join(a.Names, ".") + " " + a.TypeName
		}
		if got != want {
			t.Errorf("the bytes of %s are those of %q, too; want %q", path, got, want)
		}
	}
}

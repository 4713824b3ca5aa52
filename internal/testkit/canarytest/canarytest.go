// SPDX-License-Identifier: Apache-2.0

// Package canarytest has programs that pass secrets of every kind of value that is captured, for tests that look for those secrets
// wherever they should not be.
package canarytest

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A Value is one kind of value that can be captured, as one of the programs passes it.
type Value struct {
	About  string
	Path   string // as --arg or --ret has it
	Kind   string // of target's constants
	Form   Form   // of the secret
	Result bool
	Never  string // why nothing of the secret is ever captured, not even under keep
}

// A Form is how a secret is made and looked for.
type Form int

// The forms.
const (
	Text Form = iota
	Integer
	Float
	Address
	None // a value with no eight bytes to look for
)

// A Program passes values of many kinds to one function.
type Program struct {
	Name, Function string
	Values         []Value
	build          func(t testing.TB) string
}

func buildGo(t testing.TB) string { return testkit.BuildGo(t, "test/targets/canary") }

func buildC(t testing.TB) string {
	return testkit.BuildC(t, "ccanary", []string{"test/targets/ccanary/main.c"}, "-O1", "-g")
}

// Programs have a value of each kind.
var Programs = []*Program{
	{Name: "canary", Function: "main.Take", build: buildGo, Values: []Value{
		{About: "a Go string in registers", Path: "text", Kind: "KindString"},
		{About: "a byte slice", Path: "raw", Kind: "KindBytes"},
		{About: "a signed integer", Path: "signed", Kind: "KindInt", Form: Integer},
		{About: "an unsigned integer", Path: "number", Kind: "KindUint", Form: Integer},
		{About: "a pointer", Path: "pointer", Kind: "KindPointer", Form: Address},
		{About: "a Go string on the stack", Path: "stacked", Kind: "KindString"},
		{About: "an integer on the stack", Path: "far", Kind: "KindUint", Form: Integer},
		{About: "a struct", Path: "box", Kind: "KindOther", Never: "structs are not read whole"},
		{About: "a map", Path: "table", Kind: "KindOther", Never: "maps are not read"},
		{About: "an array of bytes", Path: "record.Array", Kind: "KindOther", Never: "Go's arrays are not read"},
		{About: "a field behind a pointer", Path: "record.Text", Kind: "KindString"},
		{About: "a byte slice behind a pointer", Path: "record.Raw", Kind: "KindBytes"},
		{About: "the number of elements of a slice", Path: "record.Many", Kind: "KindLength", Form: Integer},
		{About: "a floating-point number", Path: "record.Float", Kind: "KindFloat", Form: Float},
		{About: "a boolean", Path: "record.Flag", Kind: "KindBool", Form: None},
		{About: "a field behind two pointers", Path: "record.Inner.Text", Kind: "KindString"},
		{About: "an integer behind two pointers", Path: "record.Inner.Number", Kind: "KindUint", Form: Integer},
		{About: "a field of a struct within a struct", Path: "record.Inner.Below.Text", Kind: "KindString"},
		{About: "a field behind three pointers", Path: "record.Inner.Below.Last.Text", Kind: "KindString"},
		{About: "a string that is returned", Path: "answer", Kind: "KindString", Result: true},
		{About: "an error that is returned", Path: "err", Kind: "KindError", Result: true, Never: "of an error only is read whether it is nil"},
	}},
	{Name: "ccanary", Function: "take", build: buildC, Values: []Value{
		{About: "a C string", Path: "text", Kind: "KindCString"},
		{About: "a signed integer", Path: "number_signed", Kind: "KindInt", Form: Integer},
		{About: "an unsigned integer", Path: "number", Kind: "KindUint", Form: Integer},
		{About: "a pointer", Path: "pointer", Kind: "KindPointer", Form: Address},
		{About: "a C string on the stack", Path: "stacked", Kind: "KindCString"},
		{About: "an integer on the stack", Path: "far", Kind: "KindUint", Form: Integer},
		{About: "a C string behind a pointer", Path: "record.text", Kind: "KindCString"},
		{About: "an array of char", Path: "record.letters", Kind: "KindCString"},
		{About: "a floating-point number", Path: "record.real", Kind: "KindFloat", Form: Float},
		{About: "a C string behind two pointers", Path: "record.inner.text", Kind: "KindCString"},
		{About: "an integer behind two pointers", Path: "record.inner.number", Kind: "KindUint", Form: Integer},
		{About: "an array of char behind two pointers", Path: "record.inner.letters", Kind: "KindCString"},
		{About: "a C string of a struct within a struct", Path: "record.within.text", Kind: "KindCString"},
		{About: "an integer that is returned", Path: "r0", Kind: "KindUint", Form: Integer, Result: true},
		{About: "a struct", Path: "record.within", Kind: "KindStruct", Never: "structs are not read whole"},
	}},
}

// Actions have every kind of action. Parts are half of the eight bytes in a row that are looked for: an allocator may lay two of them side by
// side, whose bytes together are in the secret by chance if only one more is asked for.
var Actions = map[string]redact.Action{
	"Keep":   {Kind: redact.Keep},
	"Detect": {Kind: redact.Detect, Sets: detect.All},
	"Bucket": {Kind: redact.Bucket},
	"Prefix": {Kind: redact.Prefix, N: 4},
	"Suffix": {Kind: redact.Suffix, N: 4},
	"Allow":  {Kind: redact.Allow, Sets: "card,email"},
	"Digest": {Kind: redact.Digest},
	"Length": {Kind: redact.Length},
	"Drop":   {Kind: redact.Drop},
}

// Rules give all values of each program the action by whose kind its executable is called.
func Rules() []redact.Rule {
	var rules []redact.Rule
	for kind, action := range Actions {
		name := strings.ToLower(kind)
		rules = append(rules, redact.Rule{ID: "canary/" + name, Match: redact.Match{Executable: "*/*canary-" + name}, Action: action})
	}
	return rules
}

// A Running is a program with secrets of its own, all of whose values are under one action.
type Running struct {
	*testkit.Program
	Of     *Program
	Name   string // of the program and the kind of action
	Action redact.Action
	Calls  int // made so far
}

// Start starts a program under each action, from executables in a directory, and adds all secrets to what is looked for, each by the name
// of the Running and the value's path.
func Start(t testing.TB, dir string, needles *testkit.Needles) []*Running {
	t.Helper()
	var all []*Running
	for _, p := range Programs {
		b, err := os.ReadFile(p.build(t))
		if err != nil {
			t.Fatal(err)
		}
		for kind, action := range Actions {
			executable := filepath.Join(dir, p.Name+"-"+strings.ToLower(kind))
			if err := os.WriteFile(executable, b, 0o755); err != nil {
				t.Fatal(err)
			}
			r := &Running{testkit.Start(t, executable), p, p.Name + " " + kind, action, 0}
			r.Expect("ready", testkit.Slow(10*time.Second))
			for _, v := range p.Values {
				v.secret(t, r.Program, needles, r.Name+" "+v.Path, action)
			}
			all = append(all, r)
		}
	}
	return all
}

// Secrets are the names of those that leave if they are kept.
func (r *Running) Secrets() []string {
	var names []string
	for _, v := range r.Of.Values {
		if v.Never == "" && v.Form != None {
			names = append(names, r.Name+" "+v.Path)
		}
	}
	return names
}

// Call makes n calls with the secrets.
func (r *Running) Call(n int) {
	r.Calls += n
	r.Send(fmt.Sprintf("call %d", n))
	r.Expect("called", testkit.Slow(5*time.Minute))
}

// secret makes a secret for a value under an action, tells it to the program, and adds it to what is looked for.
func (v *Value) secret(t testing.TB, p *testkit.Program, needles *testkit.Needles, name string, action redact.Action) {
	t.Helper()
	var value string
	switch v.Form {
	case Text:
		value = RandomText(t)
		needles.Add(name, []byte(value))
		if action.Kind == redact.Detect {
			value = "sk_live_" + value // all of which is a key
		}
	case Integer:
		n := randomNumber(t)>>2 | 1<<61 // of nineteen digits
		needles.AddNumber(name, n)
		value = strconv.FormatUint(n, 10)
	case Address:
		n := randomNumber(t)>>18 | 1<<45
		needles.AddNumber(name, n)
		value = strconv.FormatUint(n, 10)
	case Float:
		f := math.Float64frombits(randomNumber(t)>>12 | 0x3ff<<52)
		value = strconv.FormatFloat(f, 'g', -1, 64)
		needles.AddNumber(name, math.Float64bits(f), value)
	case None:
		return
	}
	p.Send("set " + v.Path + " " + value)
	p.Expect("ok", 10*time.Second)
}

// RandomText is 32 letters and digits, which are the same in JSON, in protobuf and in memory.
func RandomText(t testing.TB) string {
	t.Helper()
	b := make([]byte, 20)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return base32.StdEncoding.EncodeToString(b)
}

func randomNumber(t testing.TB) uint64 {
	t.Helper()
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

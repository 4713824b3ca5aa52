// SPDX-License-Identifier: Apache-2.0

package kbtf

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// running are the types of the kernel that the test runs on.
var running = sync.OnceValues(func() (*Types, error) {
	f, err := os.Open(Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Open(f)
})

func kernel(t testing.TB) *Types {
	t.Helper()
	testkit.Need(t, testkit.KernelTypes)
	types, err := running()
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// TestRunningKernel asks the kernel for functions that have been the same for years, and walks to fields that every one of them has.
func TestRunningKernel(t *testing.T) {
	types := kernel(t)
	f, err := types.Function("tcp_connect")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Parameters) != 1 || f.Parameters[0].Name != "sk" || f.Parameters[0].Type.Name != "struct sock *" || f.Result.Name != "int" || f.Variadic {
		t.Errorf("tcp_connect is %+v", f)
	}
	if !types.HasHelper("probe_read_user") || types.HasHelper("there_is_none_such") {
		t.Error("the kernel's helpers are not those it has")
	}
	sock := f.Parameters[0].Type.Elem()
	if f.Parameters[0].Space != Kernel {
		t.Error("a struct sock is taken for a process's")
	}
	common, err := sock.Field("__sk_common")
	if err != nil {
		t.Fatal(err)
	}
	// In an anonymous struct of an anonymous union.
	port, err := common.Type.Field("skc_dport")
	if err != nil {
		t.Fatal(err)
	}
	if port.Type.Name != "__be16" || port.Type.Kind != Uint || port.Type.Size != 2 || port.Bits {
		t.Errorf("skc_dport is %+v", port)
	}
	ipv6only, err := common.Type.Field("skc_ipv6only")
	if err != nil || !ipv6only.Bits {
		t.Errorf("skc_ipv6only is %+v (%v); it is a bit field", ipv6only, err)
	}
	if _, err := common.Type.Field("skc_nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a field that there is not: %v", err)
	}

	f, err = types.Function("do_sys_openat2")
	if err != nil {
		t.Fatal(err)
	}
	name := f.Parameters[1]
	if name.Name != "filename" || !name.Type.Text() || name.Type.Name != "const char *" || name.Type.User != types.MarksUserPointers() || name.Space != User {
		t.Errorf("the second parameter of do_sys_openat2 is %+v", name)
	}
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	if comm, err := task.Field("comm"); err != nil || !comm.Type.Text() || comm.Type.Kind != Array || comm.Type.Count != 16 {
		t.Errorf("task_struct.comm is %+v (%v)", comm, err)
	}
	if len(task.Fields()) < 100 {
		t.Errorf("task_struct has %d fields", len(task.Fields()))
	}
	if _, err := types.Function("tcp_no_such_function"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a function that there is not: %v", err)
	}
	if _, err := types.Function("task_struct"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a struct taken for a function: %v", err)
	}
	names, err := types.Functions(func(name string) bool { return strings.HasPrefix(name, "tcp_") })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(names, "tcp_connect") || !slices.IsSorted(names) || len(names) < 50 {
		t.Errorf("%d functions begin with tcp_", len(names))
	}
}

// TestEveryFunction describes all that the kernel has: nothing is too long, and nothing has a kind without a size.
func TestEveryFunction(t *testing.T) {
	types := kernel(t)
	n := 0
	for typ, err := range types.spec.All() {
		if err != nil {
			t.Fatal(err)
		}
		f, ok := typ.(*btf.Func)
		if !ok {
			continue
		}
		n++
		described, err := types.function(f)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		for _, p := range described.Parameters {
			switch {
			case p.Type.Name == "" || len(p.Type.Name) > 200:
				t.Errorf("%s: parameter %s has the type %q", f.Name, p.Name, p.Type.Name)
			case p.Type.Kind == Other || p.Type.Kind != Struct && p.Type.Size == 0:
				t.Errorf("%s: parameter %s is %+v", f.Name, p.Name, p.Type)
			}
		}
	}
	if n < 10_000 {
		t.Errorf("the kernel has %d functions", n)
	}
}

// small is the BTF of two functions and of what they need.
func small(t testing.TB) []byte {
	t.Helper()
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Char}
	u16 := &btf.Typedef{Name: "__be16", Type: &btf.Int{Name: "unsigned short", Size: 2}}
	inner := &btf.Union{Size: 8, Members: []btf.Member{
		{Name: "port", Type: u16}, {Name: "low", Type: u16, BitfieldSize: 4},
		{Name: "name", Type: &btf.Array{Index: char, Type: char, Nelems: 8}},
	}}
	thing := &btf.Struct{Name: "thing", Size: 24, Members: []btf.Member{
		{Name: "text", Type: &btf.Pointer{Target: &btf.TypeTag{Value: "user", Type: &btf.Const{Type: char}}}}, {Type: inner, Offset: 64},
	}}
	thing.Members = append(thing.Members, btf.Member{Name: "next", Type: &btf.Pointer{Target: thing}, Offset: 128})
	b, err := btf.NewBuilder([]btf.Type{
		&btf.Func{Name: "open_thing", Type: &btf.FuncProto{Return: char, Params: []btf.FuncParam{
			{Name: "t", Type: &btf.Const{Type: &btf.Pointer{Target: thing}}}, {Name: "per", Type: &btf.Pointer{Target: &btf.TypeTag{Value: "percpu", Type: thing}}},
			{Name: "n", Type: u16}, {Type: (*btf.Void)(nil)},
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTypes(t *testing.T) {
	types, err := Open(bytes.NewReader(small(t)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := types.Function("open_thing")
	if err != nil {
		t.Fatal(err)
	}
	if !f.Variadic || len(f.Parameters) != 3 || f.Parameters[0].Type.Name != "struct thing *" || !f.Parameters[1].Type.PerCPU || types.MarksUserPointers() {
		t.Fatalf("open_thing is %+v", f)
	}
	thing := f.Parameters[0].Type.Elem()
	for name, want := range map[string]Field{
		"text": {Offset: 0, Type: Type{Kind: Pointer, Name: "const char *", Size: 8, User: true}},
		"port": {Offset: 8, Type: Type{Kind: Uint, Name: "__be16", Size: 2}},
		"low":  {Offset: 8, Type: Type{Kind: Uint, Name: "__be16", Size: 2}, Bits: true},
		"name": {Offset: 8, Type: Type{Kind: Array, Name: "char [8]", Size: 8, Count: 8}},
		"next": {Offset: 16, Type: Type{Kind: Pointer, Name: "struct thing *", Size: 8}},
	} {
		got, err := thing.Field(name)
		if err != nil {
			t.Error(err)
			continue
		}
		want.Name = name
		got.Type.underlying = nil
		if got != want {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
}

// FuzzOpen: whatever is taken for the kernel's types is refused, or answers every question.
func FuzzOpen(f *testing.F) {
	f.Add(small(f))
	f.Fuzz(func(_ *testing.T, data []byte) {
		types, err := Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		names, err := types.Functions(func(string) bool { return true })
		if err != nil {
			return
		}
		for _, name := range names[:min(len(names), 16)] {
			fn, err := types.Function(name)
			if err != nil {
				continue
			}
			for _, p := range fn.Parameters {
				for depth, typ := 0, p.Type; depth < 8; depth++ {
					typ.Text()
					fields := typ.Fields()
					if typ = typ.Elem(); len(fields) > 0 {
						typ = fields[0].Type
					}
				}
			}
		}
	})
}

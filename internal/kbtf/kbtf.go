// SPDX-License-Identifier: Apache-2.0

// Package kbtf is what the running kernel says of its own functions and types: its BTF, which it hands out as
// /sys/kernel/btf/vmlinux. It finds a function's parameters and the fields behind them; it reads no memory and no address.
package kbtf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf/btf"
)

// Path is where the kernel hands out its BTF.
const Path = "/sys/kernel/btf/vmlinux"

// Bounds. A kernel's own BTF is far below each of them.
const (
	maxBytes      = 64 << 20
	maxParameters = 32
	maxQualifiers = 16 // const, volatile, typedefs and tags in front of one type
)

// ErrNotFound says that the kernel describes no such function or field.
var ErrNotFound = errors.New("not found")

// Types are the types of one kernel. They may not be used concurrently.
type Types struct {
	spec   *btf.Spec
	tagged bool
}

// Open reads the kernel's BTF.
func Open(r io.ReaderAt) (*Types, error) {
	spec, err := btf.LoadSpecFromReader(io.NewSectionReader(r, 0, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	t := &Types{spec: spec}
	t.tagged = t.marksUserPointers()
	return t, nil
}

// HasHelper says whether eBPF programs can call a helper there, such as loop. A kernel that does not list them has all.
func (t *Types) HasHelper(name string) bool {
	var helpers *btf.Enum
	if err := t.spec.TypeByName("bpf_func_id", &helpers); err != nil {
		return true
	}
	return slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_"+name })
}

// MarksUserPointers says whether the types tell pointers to a process's memory from those to the kernel's own. They do where
// the kernel's compiler knows type tags: clang from 14, GCC from 16.
func (t *Types) MarksUserPointers() bool { return t.tagged }

// marksUserPointers looks at a parameter that is a pointer to user memory in every kernel.
func (t *Types) marksUserPointers() bool {
	f, err := t.Function("do_sys_openat2")
	return err == nil && len(f.Parameters) > 1 && f.Parameters[1].Type.User
}

// A Function is one of the kernel's, as its source declares it.
type Function struct {
	Name       string
	Parameters []Parameter
	Result     Type
	// ResultSpace is where the result points, if it is a pointer.
	ResultSpace Space
	Variadic    bool // it takes more than Parameters
}

// A Parameter of a Function.
type Parameter struct {
	Name string
	Type Type
	// Space is where the parameter points, if it is a pointer.
	Space Space
}

// A Space is whose memory a pointer points to. It matters: an address in a process's memory is the process's word, and who
// would follow it as one of the kernel's could be made to read any of the kernel's memory.
type Space int

// The spaces.
const (
	Unknown Space = iota
	Kernel
	User
)

// spaces are the parameters that the kernel's source says it of and its BTF, where it has no type tags, does not.
var spaces = map[[2]string]Space{
	{"do_sys_openat2", "filename"}: User,
	{"path_mount", "dev_name"}:     Kernel,
	{"path_mount", "type_page"}:    Kernel,
}

// space says where a parameter of a function points. Without tags structs are taken for the kernel's: it copies those of processes
// before it hands them from function to function.
func (t *Types) space(function string, p *Parameter) Space {
	known := spaces[[2]string{function, p.Name}]
	switch {
	case p.Type.Kind != Pointer:
		return Unknown
	case p.Type.User || known == User:
		return User
	case known == Kernel, t.tagged, p.Type.Elem().Kind == Struct:
		return Kernel
	}
	return Unknown
}

// Function finds a function by its exact name. The error is ErrNotFound where the kernel describes none; a kernel leaves out of its
// BTF the functions whose parameters its compiler has changed.
func (t *Types) Function(name string) (*Function, error) {
	types, err := t.spec.AnyTypesByName(name)
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return nil, fmt.Errorf("look for function %s: %w", name, err)
	}
	var found *btf.Func
	for _, candidate := range types {
		if f, ok := candidate.(*btf.Func); ok {
			if found != nil {
				return nil, fmt.Errorf("the kernel has several functions %s", name)
			}
			found = f
		}
	}
	if found == nil {
		return nil, fmt.Errorf("function %s: %w", name, ErrNotFound)
	}
	return t.function(found)
}

func (t *Types) function(f *btf.Func) (*Function, error) {
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("function %s has no prototype", f.Name)
	}
	if len(proto.Params) > maxParameters {
		return nil, fmt.Errorf("function %s has %d parameters; at most %d are followed", f.Name, len(proto.Params), maxParameters)
	}
	out := &Function{Name: f.Name, Result: typeOf(proto.Return)}
	switch {
	case out.Result.User:
		out.ResultSpace = User
	case t.tagged:
		out.ResultSpace = Kernel
	}
	for i, p := range proto.Params {
		if _, none := p.Type.(*btf.Void); none && i == len(proto.Params)-1 { // "...", as BTF says it
			out.Variadic = true
			break
		}
		parameter := Parameter{Name: p.Name, Type: typeOf(p.Type)}
		parameter.Space = t.space(f.Name, &parameter)
		out.Parameters = append(out.Parameters, parameter)
	}
	return out, nil
}

// Functions lists the names of the kernel's functions that match, sorted, each once.
func (t *Types) Functions(match func(name string) bool) ([]string, error) {
	var names []string
	for typ, err := range t.spec.All() {
		if err != nil {
			return nil, fmt.Errorf("list the kernel's functions: %w", err)
		}
		if f, ok := typ.(*btf.Func); ok && match(f.Name) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Struct finds a struct by its exact name.
func (t *Types) Struct(name string) (Type, error) {
	var s *btf.Struct
	if err := t.spec.TypeByName(name, &s); err != nil {
		return Type{}, fmt.Errorf("struct %s: %w", name, cmp.Or(notFound(err), err))
	}
	return typeOf(s), nil
}

func notFound(err error) error {
	if errors.Is(err, btf.ErrNotFound) {
		return ErrNotFound
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A KernelInput is the running kernel as the monitor saw it, and what the node lets people see of it.
type KernelInput struct {
	BTF      io.ReaderAt     // the kernel's own types
	Identity target.Identity // filled but for Language and Arch
	Allowed  policy.Kernel
}

// everyone is what explain says of a target that is no process.
const everyone = "a function of the kernel is called for every process of this node; the process of an event is the one that had the " +
	"processor, which for what interrupts do, such as receiving and sending again, is any"

// InKernel finds a function of the kernel and its arguments. Errors are as Resolve's; PERMISSION_DENIED is for what the node does not
// let people read.
func InKernel(in KernelInput, spec *probe.Spec) (*target.Target, error) {
	var t *target.Target
	err := guardKernel(func() error {
		k, err := openKernel(in)
		if err != nil {
			return err
		}
		t, err = k.resolve(spec)
		return err
	})
	return t, err
}

// KernelFunctions lists the functions of the kernel that the node's list allows and that match a pattern, as Functions does.
func KernelFunctions(in KernelInput, pattern string, limit int) (*Listing, error) {
	var l *Listing
	err := guardKernel(func() error {
		k, err := openKernel(in)
		if err != nil {
			return err
		}
		l, err = k.list(pattern, limit)
		return err
	})
	return l, err
}

func guardKernel(run func() error) error {
	err := objfile.Barrier("read", run)
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(problem.FailedPrecondition, "cannot read what the kernel says of its functions: %v", err)
}

// A kernel is the running kernel, opened for questions.
type kernel struct {
	in    KernelInput
	types *kbtf.Types
}

func openKernel(in KernelInput) (*kernel, error) {
	types, err := kbtf.Open(in.BTF)
	if err != nil {
		return nil, err
	}
	in.Identity.Language, in.Identity.Arch = "c", runtime.GOARCH
	return &kernel{in: in, types: types}, nil
}

func (k *kernel) resolve(spec *probe.Spec) (*target.Target, error) {
	f, err := k.find(spec.Function)
	if err != nil {
		return nil, err
	}
	t := &target.Target{
		Identity: k.in.Identity,
		Function: target.Function{Name: f.Name, Signature: kernelSignature(f)},
		Sites:    []target.Site{{Symbol: f.Name, Where: "entry"}},
		Notes:    []string{everyone},
	}
	v := kernelValues{kernel: k, function: f, places: arguments(f, k.in.Identity.Arch)}
	if t.Values, err = v.of(spec); err != nil {
		return nil, err
	}
	if spec.Returns() {
		if err := v.returns(t, spec); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (k *kernel) find(name string) (*kbtf.Function, error) {
	f, err := k.types.Function(name)
	if err == nil && !k.types.MarksUserPointers() && !policy.IsShippedKernelFunction(name) {
		for i := range f.Parameters {
			if p := &f.Parameters[i]; p.Space == kbtf.Kernel {
				p.Space = kbtf.Unknown // it may be a process's: __sys_connect is given its sockaddr as it came
			}
		}
	}
	if err == nil || !errors.Is(err, kbtf.ErrNotFound) {
		return f, err
	}
	p := problem.New(problem.NotFound, "this kernel (%s) says nothing of a function %.128q: it may have another name in this version, or the "+
		"compiler put it into its callers; `keyhole functions kernel` lists what can be probed", k.in.Identity.Kernel, name)
	if near, err := k.list(name, maxCandidates); err == nil {
		for _, f := range near.Functions {
			p.Candidates = append(p.Candidates, f.Name)
		}
	}
	return nil, p
}

func (k *kernel) list(pattern string, limit int) (*Listing, error) {
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	l := &Listing{Executable: k.in.Identity.Path}
	matches := matcher(pattern)
	names, err := k.allowed()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !matches(name) {
			continue
		}
		if l.Matched++; l.Matched > limit {
			continue
		}
		info := Info{Name: name}
		if f, err := k.types.Function(name); err != nil {
			info.Refused = err.Error()
		} else {
			info.Signature = kernelSignature(f)
			for _, p := range f.Parameters {
				info.Parameters = append(info.Parameters, Parameter{p.Name, p.Type.Name})
			}
		}
		l.Functions = append(l.Functions, info)
	}
	return l, nil
}

// allowed are the functions that the node's list allows and the kernel has, sorted.
func (k *kernel) allowed() ([]string, error) {
	if slices.ContainsFunc(k.in.Allowed.Functions, func(p string) bool { return strings.Contains(p, "*") }) {
		return k.types.Functions(k.in.Allowed.Allows)
	}
	// Asking for some by name is a hundred times as fast as looking at all.
	var names []string
	for _, name := range k.in.Allowed.Functions {
		if _, err := k.types.Function(name); !errors.Is(err, kbtf.ErrNotFound) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// kernelSignature writes a function as its source does.
func kernelSignature(f *kbtf.Function) string {
	var list []string
	for _, p := range f.Parameters {
		list = append(list, cDeclaration(p.Type.Name, p.Name))
	}
	if f.Variadic {
		list = append(list, "...")
	}
	if len(list) == 0 {
		list = []string{"void"}
	}
	return cDeclaration(f.Result.Name, f.Name) + "(" + strings.Join(list, ", ") + ")"
}

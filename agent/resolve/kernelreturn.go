// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"

	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// kernelResult is how a path names what a function of the kernel returns: the source gives it no name.
const kernelResult = "r0"

// neverReturn are functions in whose place another process goes on.
var neverReturn = []string{"do_exit", "do_group_exit", "make_task_dead", "panic", "__do_sys_exit", "__do_sys_exit_group"}

// returns adds to a target where the function's calls end. It is the kernel's own return probe that sees it: the kernel's stacks do not
// move, and it knows the return address of each of its probes when it unwinds one.
func (v *kernelValues) returns(t *target.Target, spec *probe.Spec) error {
	if slices.Contains(neverReturn, v.function.Name) {
		return problem.New(problem.FailedPrecondition, "%s never returns: leave out --ret, --slower-than and --errors-only to see its calls", v.function.Name)
	}
	t.Sites = append(t.Sites, target.Site{Symbol: v.function.Name, Where: "return", Return: true})
	t.Returns = &target.Returns{By: target.ByThread}
	for _, path := range spec.ResultPaths() {
		x, err := v.permit(v.result(path))
		if err != nil {
			return err
		}
		t.Returns.Values = append(t.Returns.Values, x)
	}
	if spec.Errors == "" {
		return nil
	}
	if k := kernelKind(v.function.Result); k != target.KindInt && k != target.KindUint {
		return problem.New(problem.InvalidArgument, "--errors-only: %s has no result that says whether a call failed: not an integer",
			v.function.Name)
	}
	x, err := v.result(kernelResult)
	t.Returns.Failed = &x
	return err
}

// result finds the value of a path that begins with the result.
func (v *kernelValues) result(path string) (target.Value, error) {
	names, err := split(path)
	if err != nil {
		return target.Value{}, err
	}
	void := v.function.Result.Name == "void"
	if names[0] != kernelResult || void {
		e := problem.New(problem.NotFound, "%s has no result %q", v.function.Name, names[0])
		if !void {
			e.Candidates = []string{kernelResult}
			e.Message += "; what it returns is " + kernelResult
		}
		e.Message += ", and how long it took is " + probe.Duration
		return target.Value{}, e
	}
	w := kernelWay{typ: v.function.Result, space: v.function.ResultSpace}
	w.place, w.gone = returned(v.function.Result, v.in.Identity.Arch)
	return v.walk(path, names, w)
}

// returned is where a function's result is when it has returned: rax and rdx (System V ABI AMD64 3.2.3), x0 and x1 (AAPCS64 6.9).
func returned(t kbtf.Type, arch string) (place, *missing) {
	registers := map[string][2]int{"amd64": {0, 1}, "arm64": {0, 1}}
	r, known := registers[arch]
	switch {
	case !known:
		return place{}, unsupported("how functions return on " + arch + " is not known")
	case t.Size > 16:
		return place{}, unsupported("it is returned in memory of the caller's")
	case t.Size > 8:
		return place{pieces: []piece{{size: 8, register: r[0]}, {from: 8, size: 8, register: r[1]}}}, nil
	}
	return place{pieces: []piece{{size: 8, register: r[0]}}}, nil
}

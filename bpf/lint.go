// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// allowed are the helpers that a program may call. None of them changes anything outside of our own maps.
var allowed = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnLoop, asm.FnGetPrandomU32, asm.FnGetSmpProcessorId, asm.FnProbeReadUser, asm.FnProbeReadUserStr,
	asm.FnKtimeGetBootNs, asm.FnRingbufOutput, asm.FnRingbufQuery, asm.FnGetCurrentTaskBtf, asm.FnGetAttachCookie,
}

// kernelReads are what a program for the kernel may call besides.
var kernelReads = []asm.BuiltinFunc{asm.FnProbeReadKernel, asm.FnProbeReadKernelStr}

// Functions by which what comes from the input may go on: as a copy of what was let through, as a digest, or as a decision. That they do
// what they are named for is not proved here but tested.
const (
	copier   = "kh_copy"
	hasher   = "kh_siphash"
	comparer = "kh_equal"
	allower  = "kh_allow"
)

// mostTurns is how often a loop may turn: 16 for each byte of the longest value, or once for each call that waits.
const mostTurns = 1 << 16

// Where in the frozen tables the numbers are that only plan.Verify and the loader bound.
const (
	opBytes        = int64(unsafe.Sizeof(UprobeKhOp{}))
	opDst          = int64(unsafe.Offsetof(UprobeKhOp{}.Dst))
	opSrc          = int64(unsafe.Offsetof(UprobeKhOp{}.Src))
	opArg          = int64(unsafe.Offsetof(UprobeKhOp{}.Arg))
	opN            = int64(unsafe.Offsetof(UprobeKhOp{}.N))
	configIfEnd    = int64(unsafe.Offsetof(UprobeKhConfig{}.IfEnd))
	configMachines = int64(unsafe.Offsetof(UprobeKhConfig{}.N_machines))
)

// mapFlags are what each map has to be made with: which ones user space may only write, and which ones the program may only read.
var mapFlags = map[string]uint32{
	scratchMap: unix.BPF_F_WRONLY, "kh_calls": unix.BPF_F_WRONLY | unix.BPF_F_NO_PREALLOC, "kh_tops": unix.BPF_F_WRONLY | unix.BPF_F_NO_PREALLOC,
	"kh_control": unix.BPF_F_RDONLY_PROG, "kh_patterns": unix.BPF_F_RDONLY_PROG, "kh_state": 0, "kh_counts": 0, "kh_groups": 0,
	"kh_histogram": 0, "kh_ring": 0,
}

// Lint says why an object is not to be loaded, whatever the kernel's verifier thinks of it. Over the final instructions of each of
// its programs, on every way that they can take, with any frozen tables that plan.Verify lets through, it proves that
//
//   - no helper is called but those that are allowed (a program for the kernel may read its memory, besides), and no function of the kernel;
//   - bytes leave at one place: from the first byte of the output part of a claimed slot, at most KH_MAX_OUT of them, to the session's ring;
//   - memory of the target is read to the stack, or to the input or output part of a claimed slot, at most KH_MAX_VALUE and two bytes at once;
//   - what is loaded from the parts of a slot that hold what is not redacted, and what is computed from it, is stored nowhere but there,
//     on the stack, and by kh_copy in the output part: never in another map, as a key or as a value;
//   - a slot that was claimed is given back on every way to the program's end, with each of its parts zeroed, as far as it is counted as used;
//   - each loop by a helper has at most 65,536 turns; no pointer is stored in a map; something keeps the program on the kernel's
//     stack (bpf/kernelstack.h).
//
// It relies on the verifier for what that proves: that memory is accessed within the frame, the map's value or the slot, and that
// the program ends. It does not prove what decisions alone tell (a branch on a byte is no flow here), that what is counted as used is all that was
// written, that kh_copy, kh_siphash, kh_equal and kh_allow do what they are named for, or that marks are within their part.
func Lint(spec *ebpf.CollectionSpec, kernel bool) error {
	if err := look(spec, kernel); err != nil {
		return err
	}
	for _, p := range spec.Programs {
		if err := lintFlow(p, spec, kernel, nil); err != nil {
			return fmt.Errorf("lint program %s: %w", p.Name, err)
		}
	}
	return nil
}

// look is the part of Lint that takes no time: the maps' rights, the helpers, the places where bytes leave.
func look(spec *ebpf.CollectionSpec, kernel bool) error {
	for name, m := range spec.Maps {
		want, known := mapFlags[name]
		if name == ".rodata" {
			want, known = m.Flags|unix.BPF_F_RDONLY_PROG, true
		}
		if !known || m.Flags != want {
			return fmt.Errorf("lint: the map %s has the flags %#x, or is unknown", name, m.Flags)
		}
	}
	for _, p := range spec.Programs {
		if err := lintCalls(p, kernel); err != nil {
			return fmt.Errorf("lint program %s: %w", p.Name, err)
		}
	}
	return nil
}

// lintCalls looks at every instruction, whether it can be reached or not.
func lintCalls(p *ebpf.ProgramSpec, kernel bool) error {
	outputs, tailCalls := 0, 0
	for at, i := range p.Instructions {
		switch {
		case i.IsKfuncCall():
			return fmt.Errorf("instruction %d calls a function of the kernel: %v", at, i)
		case !i.IsBuiltinCall():
			continue
		}
		f := asm.BuiltinFunc(i.Constant)
		if f == asm.FnTailCall {
			tailCalls++
			continue
		}
		if known := slices.Contains(allowed, f) || kernel && slices.Contains(kernelReads, f); !known {
			return fmt.Errorf("instruction %d calls the helper %v, which is not allowed", at, f)
		}
		if f == asm.FnRingbufOutput {
			outputs++
		}
	}
	if outputs != 1 {
		return fmt.Errorf("records leave at %d places; want one", outputs)
	}
	if tailCalls != 1 {
		return fmt.Errorf("%d tail calls; want the one that keeps it on the kernel's stack", tailCalls)
	}
	return nil
}

// lintFlow follows what a program computes, and shows it to visit, if there is one.
func lintFlow(p *ebpf.ProgramSpec, spec *ebpf.CollectionSpec, kernel bool, visit func(at int, s *state)) error {
	l, err := newLinter(p, spec.Maps, kernel)
	if err != nil {
		return err
	}
	l.visit, l.variables = visit, map[string]part{}
	for name, v := range spec.Variables {
		l.variables[name] = part{from: int64(v.Offset), to: int64(v.Offset) + int64(v.Size())}
	}
	in := &state{frames: []*frame{new(frame)}}
	for r := range in.regs {
		in.regs[r] = value{kind: nothing}
	}
	in.regs[asm.R1] = pointer(context, "")
	in.regs[asm.R10] = pointer(stack, "")
	ends, err := l.function(0, in)
	if err != nil {
		return err
	}
	for slot := range ends.states {
		if slot != 0 {
			return errors.New("ends with a slot that is not given back")
		}
	}
	return nil
}

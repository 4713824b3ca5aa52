// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// allowed are the helpers that a program may call. None of them changes anything outside of our own maps.
var allowed = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnLoop, asm.FnGetPrandomU32, asm.FnGetSmpProcessorId, asm.FnProbeReadUser, asm.FnProbeReadUserStr,
	asm.FnKtimeGetBootNs, asm.FnRingbufOutput, asm.FnRingbufQuery, asm.FnGetCurrentTaskBtf, asm.FnGetAttachCookie,
}

// kernelReads are what a program for the kernel may call besides.
var kernelReads = []asm.BuiltinFunc{asm.FnProbeReadKernel, asm.FnProbeReadKernelStr}

// Lint says why a program is not to be loaded, whatever the kernel's verifier thinks of it: it calls a helper that is not among the
// allowed (a program for the kernel may read its memory, besides) or a function of the kernel, or bytes leave it at more than one place,
// or nothing keeps it on the kernel's stack (bpf/kernelstack.h).
func Lint(p *ebpf.ProgramSpec, kernel bool) error {
	outputs, tailCalls := 0, 0
	for at, i := range p.Instructions {
		switch {
		case i.IsKfuncCall():
			return fmt.Errorf("lint program %s: instruction %d calls a function of the kernel: %v", p.Name, at, i)
		case !i.IsBuiltinCall():
			continue
		}
		f := asm.BuiltinFunc(i.Constant)
		if f == asm.FnTailCall {
			tailCalls++
			continue
		}
		if known := slices.Contains(allowed, f) || kernel && slices.Contains(kernelReads, f); !known {
			return fmt.Errorf("lint program %s: instruction %d calls the helper %v, which is not allowed", p.Name, at, f)
		}
		if f == asm.FnRingbufOutput {
			outputs++
		}
	}
	if outputs != 1 {
		return fmt.Errorf("lint program %s: records leave at %d places; want one", p.Name, outputs)
	}
	if tailCalls != 1 {
		return fmt.Errorf("lint program %s: %d tail calls; want the one that keeps it on the kernel's stack", p.Name, tailCalls)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import "syscall"

// behindBreakpoint is where a thread stops that ran into one.
const behindBreakpoint = 1

func counter(r *syscall.PtraceRegs) *uint64 { return &r.Rip }

func numbered(r *syscall.PtraceRegs, number int) uint64 {
	return [...]uint64{
		r.Rax, r.Rdx, r.Rcx, r.Rbx, r.Rsi, r.Rdi, r.Rbp, r.Rsp, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
	}[number]
}

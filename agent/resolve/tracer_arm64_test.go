// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"syscall"

	"github.com/keyhole-dev/keyhole/internal/a64"
)

// behindBreakpoint is where a thread stops that ran into one.
const behindBreakpoint = 0

func counter(r *syscall.PtraceRegs) *uint64 { return &r.Pc }

func numbered(r *syscall.PtraceRegs, number int) uint64 {
	if number == a64.StackPointer {
		return r.Sp
	}
	return r.Regs[number]
}

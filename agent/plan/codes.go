// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/keyhole-dev/keyhole/internal/redact"
)

// The numbers below are those of bpf/types.h, and a test reads that file to see that they are.

// Bounds of a plan.
const (
	MaxOps    = 64    // KH_MAX_OPS
	MaxSlots  = 16    // KH_MAX_SLOTS
	MaxValue  = 4096  // KH_MAX_VALUE: bytes read for one value
	MaxOut    = 16384 // KH_MAX_OUT: bytes of one record
	maxSets   = 8     // KH_MAX_SETS
	poolBytes = 1024  // KH_POOL_BYTES
	maxRegs   = 32    // KH_MAX_REGS

	// maxStart is the last byte of a record at which a value may begin: the kernel wants room for the longest one there.
	maxStart = MaxOut - MaxValue

	RecordHeaderBytes = 40 // struct kh_record
	ValueHeaderBytes  = 8  // struct kh_value
)

// A Code says what an Op does: enum kh_op_code.
type Code uint8

// The codes.
const (
	OpEnd     Code = 0
	OpReg     Code = 1
	OpLoad    Code = 2
	OpEmit    Code = 3
	OpBytes   Code = 4
	OpCStr    Code = 5
	OpIfInt   Code = 6
	OpIfBytes Code = 7
	OpIfCStr  Code = 8
)

func (c Code) emits() bool    { return c == OpEmit || c == OpBytes || c == OpCStr }
func (c Code) compares() bool { return c == OpIfInt || c == OpIfBytes || c == OpIfCStr }

// The actions of emitting ops: enum kh_action.
const (
	ActKeep   uint8 = 0
	ActLength uint8 = 1
	ActDigest uint8 = 2
	ActPrefix uint8 = 3
	ActSuffix uint8 = 4
	ActDetect uint8 = 5
)

// The comparisons of the ops that compare: enum kh_compare.
const (
	CmpEQ     uint8 = 0
	CmpNE     uint8 = 1
	CmpLT     uint8 = 2
	CmpLE     uint8 = 3
	CmpGT     uint8 = 4
	CmpGE     uint8 = 5
	CmpSigned uint8 = 0x10
)

// The reasons in a value's header: enum kh_reason.
const (
	ReasonOK         uint8 = 0
	ReasonNil        uint8 = 1
	ReasonFault      uint8 = 2
	ReasonBadLength  uint8 = 3
	ReasonUnfinished uint8 = 4
)

// DigestBytes is the length of a digest in a record.
const DigestBytes = 8

// kernelAction is how an op of the plan says an action other than drop, for which there is no op.
func (p *Plan) kernelAction(a redact.Action) (action uint8, aux uint16) {
	switch a.Kind {
	case redact.Keep:
		return ActKeep, 0
	case redact.Digest:
		return ActDigest, 0
	case redact.Prefix:
		return ActPrefix, uint16(a.N)
	case redact.Suffix:
		return ActSuffix, uint16(a.N)
	case redact.Detect:
		return ActDetect, uint16(slices.Index(p.Sets, a.Sets))
	default:
		return ActLength, 0
	}
}

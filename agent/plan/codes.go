// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
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
	// MaxWaiting is how many calls wait for their return at the same time: KH_MAX_WAITING.
	MaxWaiting = 65536
	// MaxCallers is how many callers of a function one record says: KH_MAX_CALLERS.
	MaxCallers = 64
	maxGroup   = 64 // KH_GROUP_BYTES
	maxRegs    = 32 // KH_MAX_REGS

	// maxStart is the last byte of a record at which a value may begin: the kernel wants room for the longest one there.
	maxStart = MaxOut - MaxValue

	RecordHeaderBytes = 48 // struct kh_record
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
	OpTest    Code = 16
)

func (c Code) emits() bool { return c == OpEmit || c == OpBytes || c == OpCStr }
func (c Code) reads() bool {
	return c == OpLoad || c == OpBytes || c == OpCStr || c == OpIfBytes || c == OpIfCStr
}
func (c Code) compares() bool { return c == OpIfInt || c == OpIfBytes || c == OpIfCStr }

// The actions of emitting ops: enum kh_action.
const (
	ActKeep   uint8 = 0
	ActLength uint8 = 1
	ActDigest uint8 = 2
	ActPrefix uint8 = 3
	ActSuffix uint8 = 4
	ActDetect uint8 = 5
	ActAllow  uint8 = 6
	ActBucket uint8 = 7
)

// searches says whether an op looks for what the sets at Aux find.
func (op *Op) searches() bool { return op.Action == ActDetect || op.Action == ActAllow }

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
	ReasonAddress    uint8 = 4
	ReasonUnfinished uint8 = 5
	ReasonNotAllowed uint8 = 6
)

// The flags in a value's header: enum kh_value_flag.
const (
	FlagTruncated uint8 = 1
	FlagWithheld  uint8 = 2
)

// DigestBytes is the length of a digest in a record.
const DigestBytes = 8

// act makes an op emit a value of a kind by an action, which is any but drop: there is no op for that.
func (p *Plan) act(op *Op, a redact.Action, k target.Kind) {
	switch a.Kind {
	case redact.Keep:
		op.Action = ActKeep
	case redact.Digest:
		op.Action = ActDigest
	case redact.Prefix:
		op.Action, op.Aux = ActPrefix, uint16(a.N)
	case redact.Suffix:
		op.Action, op.Aux = ActSuffix, uint16(a.N)
	case redact.Detect:
		op.Action, op.Aux = ActDetect, uint16(slices.Index(p.Sets, a.Sets))
	case redact.Allow:
		op.Action, op.Aux = ActAllow, uint16(slices.Index(p.Sets, a.Sets))
	case redact.Bucket:
		op.Action, op.Off = ActBucket, int32(a.N)
		if k == target.KindInt {
			op.N = uint32(CmpSigned)
		}
	default:
		op.Action = ActLength
	}
}

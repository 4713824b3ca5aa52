// SPDX-License-Identifier: Apache-2.0

// Package event is what a hit became: decoded, named, with a reason for each value that is missing and the rule for
// each that was redacted. Its JSON names are part of the product's contract.
package event

import "time"

// An Event is one hit of a probe.
type Event struct {
	SessionID    string
	ProbeID      string
	Node         string
	Time         time.Time
	BootNs       uint64 // CLOCK_BOOTTIME of the hit, the reading that was compared with the deadline
	Process      Process
	GoroutineID  uint64 // 0: not a Go program, or not readable
	Function     string
	AttachPoint  string // "entry"; "call" for a call with its return
	Arguments    []Value
	Results      []Value
	Duration     time.Duration // from entry to return, of a call
	PolicyDigest string
}

// A Process is who made the call.
type Process struct {
	PID, TID int
	Comm     string
}

// A Value is one captured argument. Value is text in the form that its Kind documents; it is empty if Missing is set.
type Value struct {
	Name      string
	Type      string
	Kind      string
	Value     string
	Truncated bool
	Missing   string     // a Reason, or empty
	Redaction *Redaction // nil: the value as it was
}

// Failed says whether the value is an error that is not nil.
func (v Value) Failed() bool { return v.Kind == KindError && v.Missing == "" && v.Value != NilError }

// The texts of a value of KindError.
const (
	NilError = "nil"
	AnError  = "not nil"
)

// The kinds of value: how Value.Value is to be read. An open list.
const (
	KindInt     = "int"     // decimal
	KindUint    = "uint"    // decimal
	KindBool    = "bool"    // true or false
	KindFloat   = "float"   // the shortest decimal that reads back as the same number; NaN, +Inf, -Inf
	KindString  = "string"  // UTF-8; each byte that is not part of a character is written \xNN, all else as it is
	KindBytes   = "bytes"   // base64 (RFC 4648, with padding)
	KindPointer = "pointer" // 0x and hex digits
	KindError   = "error"   // nil or not nil
	KindLength  = "length"  // decimal: elements of a slice; of a redacted string its bytes
	KindDigest  = "digest"  // 16 hex digits: equal values have equal digests within one attachment
)

// A Redaction says what was done to a value and by which rule.
type Redaction struct {
	Action string
	Rule   string
}

// Reasons why a value is missing: an open list.
const (
	NilPointer   = "nil pointer"
	Fault        = "fault"         // the page was not resident
	BadLength    = "bad length"    // a length that no string can have
	OptimizedOut = "optimized out" // the compiler keeps it nowhere at the attach point
	FloatReg     = "float register"
	Unsupported  = "unsupported type"
	NoDebugInfo  = "no debug information"
	Redacted     = "redacted" // dropped: no op read it
	TooDeep      = "too deep"
	Malformed    = "malformed record"
)

// Counts are a session's hits by outcome. Hits = Emitted + Filtered + SampledOut + Throttled + OverLimit + Lost + Unpaired.
// With returns a hit is a call, and Unpaired counts those that were let in and whose return was not seen, by reason.
type Counts struct {
	Hits, Emitted, Filtered, SampledOut, Throttled, OverLimit, Lost uint64

	Unpaired                UnpairedCounts
	Delivered, LostToClient uint64
	CostNs                  uint64 // processor time taken from the target: traps and program
	Final                   bool   // read after the link was closed
}

// UnpairedCounts says why there is no return for an entry.
type UnpairedCounts struct {
	NoRoom         uint64 // as many calls as fit waited for their return already
	Unwound        uint64 // the frame was left otherwise: a panic recovered above, a longjmp, an exception
	GoroutineEnded uint64
	Waiting        uint64 // it has not returned yet; when the counts are final: it never did
}

// Sum is how many there are in all.
func (u UnpairedCounts) Sum() uint64 { return u.NoRoom + u.Unwound + u.GoroutineEnded + u.Waiting }

// Reasons why a call that was let in is unpaired: an open list, `unpairedReasons` in JSON.
const (
	UnpairedCapacity  = "capacity"
	UnpairedUnwound   = "unwound"
	UnpairedGoroutine = "goroutine ended"
	UnpairedNoReturn  = "no return"
)

// ByReason names the counts.
func (u UnpairedCounts) ByReason() map[string]uint64 {
	return map[string]uint64{
		UnpairedCapacity: u.NoRoom, UnpairedUnwound: u.Unwound, UnpairedGoroutine: u.GoroutineEnded, UnpairedNoReturn: u.Waiting,
	}
}

// Causes that end a session: an open list, `endedBy` in JSON.
const (
	EndDeadline       = "deadline"
	EndStopped        = "stopped"
	EndMaxHits        = "max_hits"
	EndMaxBytes       = "max_bytes"
	EndTargetGone     = "target_gone"
	EndTargetReplaced = "target_replaced"
	EndForks          = "forks" // the target forked so much that its children would pay for the probe
	EndHolderLost     = "holder_lost"
	EndAgentLost      = "agent_lost"
	EndRevoked        = "revoked"
	EndTripped        = "tripped" // over its budget, or over what the node has left
	EndNotAttached    = "not_attached"
	EndAuditLost      = "audit_lost" // the record `attached` could not be made durable
)

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
	AttachPoint  string // "entry"
	Arguments    []Value
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

// The kinds of value: how Value.Value is to be read. An open list.
const (
	KindInt     = "int"     // decimal
	KindUint    = "uint"    // decimal
	KindBool    = "bool"    // true or false
	KindFloat   = "float"   // the shortest decimal that reads back as the same number; NaN, +Inf, -Inf
	KindString  = "string"  // UTF-8; each byte that is not part of a character is written \xNN, all else as it is
	KindBytes   = "bytes"   // base64 (RFC 4648, with padding)
	KindPointer = "pointer" // 0x and hex digits
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
	Unfinished   = "redaction unfinished" // what should have overwritten parts of it could not be run, so nothing left
)

// Counts are a session's hits by outcome. Hits = Emitted + Filtered + SampledOut + Throttled + OverLimit + Lost.
type Counts struct {
	Hits, Emitted, Filtered, SampledOut, Throttled, OverLimit, Lost uint64
	Delivered, LostToClient                                         uint64
	Final                                                           bool // read after the link was closed
}

// Causes that end a session: an open list, `endedBy` in JSON.
const (
	EndDeadline       = "deadline"
	EndStopped        = "stopped"
	EndMaxHits        = "max_hits"
	EndMaxBytes       = "max_bytes"
	EndTargetGone     = "target_gone"
	EndTargetReplaced = "target_replaced"
	EndHolderLost     = "holder_lost"
	EndAgentLost      = "agent_lost"
	EndRevoked        = "revoked"
	EndNotAttached    = "not_attached"
	EndAuditLost      = "audit_lost" // the record `attached` could not be made durable
)

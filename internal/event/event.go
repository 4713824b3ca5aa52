// SPDX-License-Identifier: Apache-2.0

// Package event is what a hit became: decoded, named, with a reason for each value that is missing and the rule for
// each that was redacted. Its JSON names are part of the product's contract.
package event

import (
	"math"
	"time"
)

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
	Stack        []Frame // the function first, then its callers; none: not asked for
	// StackCut says why what follows Stack is not known; empty: it is all there is.
	StackCut string
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
	NilPointer    = "nil pointer"
	Fault         = "fault"          // the page was not resident
	BadLength     = "bad length"     // a length that no string can have
	KernelAddress = "kernel address" // a number that is, or may be, one: none leaves
	OptimizedOut  = "optimized out"  // the compiler keeps it nowhere at the attach point
	FloatReg      = "float register"
	Unsupported   = "unsupported type"
	NoDebugInfo   = "no debug information"
	Redacted      = "redacted" // dropped: no op read it
	TooDeep       = "too deep"
	NotAllowed    = "not allowed" // the node lets probes read no memory there
	NotInSet      = "not in an allowed set"
	Unfinished    = "redaction unfinished" // what should have overwritten parts of it could not be run, so nothing left
	Malformed     = "malformed record"
)

// Counts are a session's hits by outcome. Hits = Emitted + Filtered + SampledOut + Throttled + OverLimit + Lost + Unpaired.
// With returns a hit is a call, and Unpaired counts those that were let in and whose return was not seen, by reason.
type Counts struct {
	Hits, Emitted, Filtered, SampledOut, Throttled, OverLimit, Lost uint64

	Unpaired                UnpairedCounts
	Delivered, LostToClient uint64
	// Missed counts the calls at which the kernel could not run the probe, which are no hits; nil: it does not say.
	Missed *uint64
	CostNs uint64 // processor time taken from the target: traps and program
	Final  bool   // read after the link was closed
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

// An Aggregate is what a session has counted in the kernel so far, in the place of events.
type Aggregate struct {
	SessionID string
	Node      string
	Time      time.Time
	Function  string
	Calls     uint64 // counted
	Path      string // of the value that they are counted by, or of the number; empty: there is none
	Groups    []Group
	Other     uint64     // calls with values beyond those that there was room for
	Histogram *Histogram // nil: they are not counted so
	Durations bool       // the numbers are how long calls took, in nanoseconds
}

// A Group is the calls with one value.
type Group struct {
	Value Value
	Calls uint64
}

// A Histogram is numbers in the buckets of an OpenTelemetry exponential histogram: bucket i of so many at a scale holds what
// is above 2^(i/2^scale) and not above 2^((i+1)/2^scale).
type Histogram struct {
	Scale              int
	Zero               uint64
	Positive, Negative Buckets
	Sum                int64  // modulo 2^64
	Missing            uint64 // calls in which the number could not be read
}

// Buckets are the counts of those from the first that is not empty to the last, and the number of the first.
type Buckets struct {
	Offset int
	Counts []uint64
}

// Count is how many numbers there are.
func (h *Histogram) Count() uint64 {
	n := h.Zero
	for _, b := range []Buckets{h.Positive, h.Negative} {
		for _, c := range b.Counts {
			n += c
		}
	}
	return n
}

// Quantile is a number that a share q of all, 0 to 1, does not exceed: the upper bound of its bucket. 0 if there are none.
func (h *Histogram) Quantile(q float64) float64 {
	want := uint64(math.Ceil(q * float64(h.Count())))
	bound := func(i int) float64 { return math.Exp2(float64(i) / math.Exp2(float64(h.Scale))) }
	var seen uint64
	for i := len(h.Negative.Counts) - 1; i >= 0; i-- {
		if seen += h.Negative.Counts[i]; seen >= want && seen > 0 {
			return -bound(h.Negative.Offset + i)
		}
	}
	if seen += h.Zero; seen >= want {
		return 0
	}
	for i, n := range h.Positive.Counts {
		if seen += n; seen >= want {
			return bound(h.Positive.Offset + i + 1)
		}
	}
	return 0
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
	EndNotResumed     = "not_resumed" // the probe could not be attached once more
	EndAuditLost      = "audit_lost"  // the record `attached` could not be made durable
)

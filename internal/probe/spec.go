// SPDX-License-Identifier: Apache-2.0

// Package probe is what a requester asks for: which function of which process to observe, what to capture, under
// which limits and why. A Spec is a plain value, validated before anything acts on it, and validated again by each
// side that receives one.
package probe

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// A Spec is one request for a probe. The zero value is not valid; Validate says what is missing.
type Spec struct {
	Target   Selector `json:"target"`
	Function string   `json:"function"`
	// Arguments are the paths to capture, such as "c.user.email". None means every parameter to depth 1.
	Arguments []string `json:"arguments,omitempty"`
	// Where is a condition such as `qty > 10 && sku == "A"`, in the grammar of ParseWhere. Empty: every hit.
	Where string `json:"where,omitempty"`
	// Results are the paths to capture at the return, such as "err" or "r0.id". Duration stands for the time from entry to
	// return, which every event of a request with any result has: alone it asks for nothing else.
	Results []string `json:"results,omitempty"`
	// SlowerThan and Errors leave out calls that took less, and calls that did not fail.
	SlowerThan time.Duration `json:"slowerThanNs,omitempty"`
	Errors     Errors        `json:"errors,omitempty"`
	// Stack asks for the callers of each call that is shown.
	Stack bool `json:"stack,omitempty"`
	// Redact makes fields stricter than the policy does; it never weakens.
	Redact []Redaction `json:"redact,omitempty"`
	Limits Limits      `json:"limits"`
	Reason string      `json:"reason"`
	// Aggregate says what is counted in the kernel instead of emitting events. Groups and histograms take the one argument.
	Aggregate Aggregate `json:"aggregate,omitempty"`
}

// Duration is the path that stands for how long a call took. A result of that name is r0, r1, ... by its place.
const Duration = "duration"

// Errors says which calls failed.
type Errors string

// The ways to tell. The zero value asks for no such thing.
const (
	ErrorsOnly  Errors = "errors"  // a result of Go's type error is not nil; where there is none, a number is negative
	NonzeroOnly Errors = "nonzero" // a number is not zero
)

// Returns says whether the request is about calls with their returns.
func (s *Spec) Returns() bool {
	return len(s.Results) > 0 || s.SlowerThan > 0 || s.Errors != "" || s.Aggregate == AggregateDurations
}

// ResultPaths are the results to capture.
func (s *Spec) ResultPaths() []string {
	return slices.DeleteFunc(slices.Clone(s.Results), func(path string) bool { return path == Duration })
}

// An Aggregate is a way to count hits without emitting events.
type Aggregate string

// The ways to count.
const (
	AggregateNone      Aggregate = ""
	AggregateCount     Aggregate = "count"     // all together
	AggregateGroups    Aggregate = "groups"    // by a value
	AggregateHistogram Aggregate = "histogram" // of a number
	AggregateDurations Aggregate = "durations" // the histogram of how long calls took, in nanoseconds
)

// SelectorKind says how a Selector names its target.
type SelectorKind string

// The kinds of selector.
const (
	SelectPID SelectorKind = "pid" // one process by its number on the node
	SelectExe SelectorKind = "exe" // one process that runs the executable with this path
	// SelectKernel is the node's own kernel: a function of it is called by every process, and no process is named.
	SelectKernel SelectorKind = "kernel"
)

// A Selector names the process to observe, or the kernel, on one node or on any.
type Selector struct {
	Kind SelectorKind `json:"kind"`
	PID  int          `json:"pid,omitempty"`  // SelectPID
	Path string       `json:"path,omitempty"` // SelectExe: absolute
	Node string       `json:"node,omitempty"` // empty: the only node, else the request is refused
}

// String is the selector as ParseTarget reads it: pid/123, exe/usr/bin/caddy or kernel. It leaves out the node.
func (s Selector) String() string {
	if s.Kind == SelectPID {
		return "pid/" + strconv.Itoa(s.PID)
	}
	return string(s.Kind) + s.Path
}

// A Redaction asks for an action on one path and all that lies below it.
type Redaction struct {
	Path   string `json:"path"`
	Action string `json:"action"` // as redact.ParseAction reads it: "drop", "digest", "suffix:4", ...
}

// Limits bound what one session may cost and emit. Zero fields are replaced by WithDefaults.
type Limits struct {
	TTL        time.Duration `json:"ttlNs"`                // from attach to detach; at most MaxTTL
	MaxHits    uint64        `json:"maxHits,omitempty"`    // events; 0: no limit
	Rate       uint32        `json:"rate"`                 // events per second; default 50
	Sample     uint32        `json:"sample,omitempty"`     // one hit of so many is looked at; 0 and 1: all
	MaxBytes   uint64        `json:"maxBytes"`             // bytes of records; default 8 MiB
	ValueBytes uint32        `json:"valueBytes,omitempty"` // bytes captured of one string; default 256, at most 4096
	Budget     Budget        `json:"budget"`               // what it may cost the target; default 2 % of a core
	Duty       Duty          `json:"duty,omitempty"`       // how much of each second it is attached; 0: all
}

// Floors and defaults. No policy and no flag goes beyond the maxima.
const (
	DefaultTTL        = 5 * time.Minute
	MaxTTL            = time.Hour
	DefaultRate       = 50
	MaxRate           = 1_000_000
	DefaultMaxBytes   = 8 << 20
	MaxBytes          = 1 << 30
	DefaultValueBytes = 256
	MaxValueBytes     = 4096
	DefaultBudget     = 20      // 2 % of a core
	MaxBudget         = 100_000 // a hundred cores
	MaxArguments      = 32      // paths in one request
	MaxPathBytes      = 256     // one path
	MaxFunctionBytes  = 1024    // a generic Go name can be long
	MaxReasonBytes    = 200     // characters; the audit log keeps them
	MaxWhereBytes     = 1024    // one condition
	MaxConditions     = 8       // comparisons in one condition
	MaxLiteralBytes   = 128     // one string that a condition compares with
)

// WithDefaults returns the Spec with the defaults in place of the limits that are zero.
func (s Spec) WithDefaults() Spec {
	l := &s.Limits
	if l.TTL == 0 {
		l.TTL = DefaultTTL
	}
	if l.Rate == 0 {
		l.Rate = DefaultRate
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.ValueBytes == 0 {
		l.ValueBytes = DefaultValueBytes
	}
	if l.Budget == 0 {
		l.Budget = DefaultBudget
	}
	return s
}

// Digest names this very request: "sha256:" and the hash of its JSON, with the defaults in place, in hex. The record
// of the intent carries it, and a grant is believed only for the request that is on record.
func (s Spec) Digest() string {
	data, err := json.Marshal(s.WithDefaults())
	if err != nil {
		panic("probe: a Spec holds only values that have a JSON form: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

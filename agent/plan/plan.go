// SPDX-License-Identifier: Apache-2.0

// Package plan turns a target and the redaction decisions into the straight-line program of one probe: what the kernel
// reads, in which order, and as what each value leaves. The same Plan writes the kernel's tables and reads its records.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Plan is immutable once compiled. Verify proves it before anything is loaded; Digest names it in the audit log.
type Plan struct {
	Identity target.Identity `json:"identity"`
	Function string          `json:"function"`
	Sites    []target.Site   `json:"sites"`
	Ops      []Op            `json:"ops"`
	IfEnd    int             `json:"ifEnd"` // Ops[:IfEnd] decide, Ops[IfEnd:] capture
	Pool     []byte          `json:"pool"`  // constants of conditions
	// Sets are what values are searched for, each a list as detect.Parse writes it; an op that detects names one by its index.
	Sets []string `json:"sets,omitempty"`
	// Patterns are those sets that are not built in.
	Patterns []detect.Pattern `json:"patterns,omitempty"`
	// Conditions are what Ops[:IfEnd] compare, one for each comparing op, in order.
	Conditions []Condition `json:"conditions,omitempty"`
	Fields     []Field     `json:"fields"`
	// Withheld are the values that do not leave as they are, and where they are.
	Withheld []Withheld `json:"withheld,omitempty"`
	Returns  *Returns   `json:"returns,omitempty"` // nil: nothing looks at returns
	Stack    *Stack     `json:"stack,omitempty"`   // nil: nobody asked for callers
	Limits   Limits     `json:"limits"`
	// Goroutine is set if the first emitted value is the goroutine's number.
	Goroutine    bool   `json:"goroutine"`
	PolicyDigest string `json:"policyDigest"`
	// Aggregate is what becomes of the one field, or of hits alone, instead of records.
	Aggregate probe.Aggregate `json:"aggregate,omitempty"`
}

// Returns is the part of a plan that is carried out at the return of a call that was let in at its entry.
type Returns struct {
	By         target.Pairing `json:"by"`
	ByKernel   bool           `json:"byKernel,omitempty"` // its site is the entry, at which the kernel changes where the call returns to
	GoidOffset int64          `json:"goidOffset,omitempty"`
	SlowerThan time.Duration  `json:"slowerThanNs,omitempty"`
	// Start is the first op of the return: Ops[Start:IfEnd] decide, Ops[IfEnd:] capture the results.
	Start      int         `json:"start"`
	IfEnd      int         `json:"ifEnd"`
	Conditions []Condition `json:"conditions,omitempty"`
	Results    []Field     `json:"results"`
}

// Decides says whether a return can leave a call out that its entry let in.
func (r *Returns) Decides() bool { return r.SlowerThan > 0 || len(r.Conditions) > 0 }

// EntryEnd is where the ops of the entry end.
func (p *Plan) EntryEnd() int {
	if p.Returns != nil {
		return p.Returns.Start
	}
	return len(p.Ops)
}

// AllFields are the fields and the results, in the order of a record.
func (p *Plan) AllFields() []Field {
	if p.Returns == nil {
		return p.Fields
	}
	return slices.Concat(p.Fields, p.Returns.Results)
}

// A Condition is one comparison of the request, on a value that is kept: one on a redacted value would tell it by firing.
type Condition struct {
	Path   string `json:"path"`
	Text   string `json:"text"`   // qty > 10
	Action string `json:"action"` // what the rules make of the value: keep, or there is no plan
	Rule   string `json:"rule"`
}

// A Field is one value of the event, in order. A field that no op emits says why in Missing, or is dropped by Rule.
type Field struct {
	Path     string      `json:"path"`
	TypeName string      `json:"typeName"`
	Kind     target.Kind `json:"kind"`
	Size     int         `json:"size"`
	// BigEndian says of an unsigned number that its first byte in a record is the highest.
	BigEndian bool   `json:"bigEndian,omitempty"`
	Action    string `json:"action"` // redact.Action's text: "keep", "drop", "suffix:4"
	Rule      string `json:"rule"`
	Missing   string `json:"missing,omitempty"` // an event reason; event.Redacted if Action is drop
	Detail    string `json:"detail,omitempty"`  // for people
	Emits     bool   `json:"emits"`             // exactly one op emits it
	MaxBytes  int    `json:"maxBytes"`          // of the value in a record, without its header
}

// Limits are what the kernel counts with.
type Limits struct {
	TTL        time.Duration `json:"ttlNs"`
	MaxHits    uint64        `json:"maxHits"`
	Rate       uint32        `json:"rate"`
	Sample     uint32        `json:"sample"`
	MaxBytes   uint64        `json:"maxBytes"`
	ValueBytes uint32        `json:"valueBytes"`
	Budget     probe.Budget  `json:"budget"`
	Duty       probe.Duty    `json:"duty,omitempty"`
}

// An Op is one step of the straight line; bpf/types.h says what each does.
type Op struct {
	Code   Code   `json:"code"`
	Dst    uint8  `json:"dst,omitempty"`
	Src    uint8  `json:"src,omitempty"`
	Arg    uint8  `json:"arg,omitempty"`
	Off    int32  `json:"off,omitempty"`
	N      uint32 `json:"n,omitempty"`
	Aux    uint16 `json:"aux,omitempty"`
	Action uint8  `json:"action,omitempty"`
	// User says of a read in a plan for the kernel that the address is a process's, and what is read its memory.
	User bool `json:"user,omitempty"`
}

// Digest names the plan: "sha256:" and the hash, in hex, of its JSON. Two sides that compile the same request for the same
// target under the same rules get the same digest.
func (p *Plan) Digest() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic("plan: a Plan holds only values that have a JSON form: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// MaxRecordBytes is the length of the longest record that the plan's ops can make.
func (p *Plan) MaxRecordBytes() int {
	_, n := p.layout()
	return n
}

// MaxWaitingBytes is the length of the longest record as it waits for a call's return.
func (p *Plan) MaxWaitingBytes() int {
	entry := *p
	entry.Returns, entry.Stack = nil, nil
	return entry.MaxRecordBytes()
}

// MaxWaitingCalls is how many calls wait for their return at the same time: MaxWaiting, or as many as fit into 64 MiB.
func (p *Plan) MaxWaitingCalls() int {
	const memory = 64 << 20
	return min(MaxWaiting, memory/p.MaxWaitingBytes())
}

// layout says where the bytes of the last value begin, and how long the record is, if each value is as long as it can be.
func (p *Plan) layout() (lastStart, total int) {
	total = RecordHeaderBytes
	if p.Goroutine {
		lastStart = total + ValueHeaderBytes
		total = lastStart + goroutineBytes
	}
	for _, f := range p.AllFields() {
		if f.Emits {
			lastStart = total + ValueHeaderBytes
			total = lastStart + Padded(f.MaxBytes)
		}
	}
	if p.Stack != nil {
		lastStart = total + ValueHeaderBytes
		total = lastStart + AddressBytes*p.Stack.Callers
	}
	return lastStart, total
}

// Padded is the room that n bytes of a value take in a record.
func Padded(n int) int { return (n + 7) &^ 7 }

const goroutineBytes = 8

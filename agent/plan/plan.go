// SPDX-License-Identifier: Apache-2.0

// Package plan turns a target and the redaction decisions into the straight-line program of one probe: what the kernel
// reads, in which order, and as what each value leaves. The same Plan writes the kernel's tables and reads its records.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

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
	// Conditions are what Ops[:IfEnd] compare, one for each comparing op, in order.
	Conditions []Condition `json:"conditions,omitempty"`
	Fields     []Field     `json:"fields"`
	Limits     Limits      `json:"limits"`
	// Goroutine is set if the first emitted value is the goroutine's number.
	Goroutine    bool   `json:"goroutine"`
	PolicyDigest string `json:"policyDigest"`
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
	Action   string      `json:"action"` // redact.Action's text: "keep", "drop", "suffix:4"
	Rule     string      `json:"rule"`
	Missing  string      `json:"missing,omitempty"` // an event reason; event.Redacted if Action is drop
	Detail   string      `json:"detail,omitempty"`  // for people
	Emits    bool        `json:"emits"`             // exactly one op emits it
	MaxBytes int         `json:"maxBytes"`          // of the value in a record, without its header
}

// Limits are what the kernel counts with.
type Limits struct {
	TTL        time.Duration `json:"ttlNs"`
	MaxHits    uint64        `json:"maxHits"`
	Rate       uint32        `json:"rate"`
	Sample     uint32        `json:"sample"`
	MaxBytes   uint64        `json:"maxBytes"`
	ValueBytes uint32        `json:"valueBytes"`
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

// layout says where the bytes of the last value begin, and how long the record is, if each value is as long as it can be.
func (p *Plan) layout() (lastStart, total int) {
	total = RecordHeaderBytes
	if p.Goroutine {
		lastStart = total + ValueHeaderBytes
		total = lastStart + goroutineBytes
	}
	for i := range p.Fields {
		if p.Fields[i].Emits {
			lastStart = total + ValueHeaderBytes
			total = lastStart + Padded(p.Fields[i].MaxBytes)
		}
	}
	return lastStart, total
}

// Padded is the room that n bytes of a value take in a record.
func Padded(n int) int { return (n + 7) &^ 7 }

const goroutineBytes = 8

// Package plan turns a target and the redaction decisions into the straight-line program of one probe: what the kernel
// reads, in which order, and as what each value leaves. The same Plan writes the kernel's tables and reads its records.
package plan

import (
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
	Fields   []Field         `json:"fields"`
	Limits   Limits          `json:"limits"`
	// Goroutine is set if the first emitted value is the goroutine's number.
	Goroutine    bool   `json:"goroutine"`
	PolicyDigest string `json:"policyDigest"`
}

// A Field is one value of the event, in order. A field that no op emits says why in Missing, or is dropped by Rule.
type Field struct {
	Path     string      `json:"path"`
	TypeName string      `json:"typeName"`
	Kind     target.Kind `json:"kind"`
	Size     int         `json:"size"`
	Action   string      `json:"action"` // redact.Action's text: "keep", "drop", "suffix:4"
	Rule     string      `json:"rule"`
	Missing  string      `json:"missing,omitempty"`
	Detail   string      `json:"detail,omitempty"`
	Emits    bool        `json:"emits"` // exactly one op emits it
	MaxBytes int         `json:"maxBytes"`
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

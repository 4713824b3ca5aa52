// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Withheld is a value that does not leave as it is, and where its bytes are. They leave by no other value either: one way to a
// byte may have a name that no rule knows, and another one that it does.
type Withheld struct {
	Path   string `json:"path"`
	Action string `json:"action"`
	Rule   string `json:"rule"`
	Return bool   `json:"return,omitempty"` // seen at the return: registers and memory are of another time than at the entry
	At     Extent `json:"at"`
}

// An Extent is where bytes are, as far as it is known before a call: behind a pointer that is found by a register and other pointers,
// or in a register. Two of these may still be the same memory, if the program has two pointers to it.
type Extent struct {
	Register int     `json:"register"`          // DWARF number
	Shift    int     `json:"shift,omitempty"`   // bytes of the register below the pointer
	Offsets  []int64 `json:"offsets,omitempty"` // of the pointers that are followed on the way, as in target.Location
	Memory   bool    `json:"memory,omitempty"`  // behind the pointer; else in the register, without shift or offsets
	From     int64   `json:"from"`              // the first byte
	To       int64   `json:"to"`                // the one behind the last
}

// overlaps says whether two extents have a byte in common.
func (e *Extent) overlaps(other *Extent) bool {
	return e.Register == other.Register && e.Shift == other.Shift && e.Memory == other.Memory && slices.Equal(e.Offsets, other.Offsets) &&
		e.From < other.To && other.From < e.To
}

// scalarAt is the extent of a number of a size at a location.
func scalarAt(l *target.Location, size int) Extent {
	last := len(l.Offsets) - 1
	if last < 0 {
		return Extent{Register: l.Register, From: int64(l.Shift), To: int64(l.Shift + size)}
	}
	from := l.Offsets[last]
	return Extent{Register: l.Register, Shift: l.Shift, Offsets: l.Offsets[:last:last], Memory: true, From: from, To: from + int64(size)}
}

// textAt is the extent of n bytes at an offset behind the pointer at a location.
func textAt(l *target.Location, offset, n int64) Extent {
	return Extent{Register: l.Register, Shift: l.Shift, Offsets: l.Offsets, Memory: true, From: offset, To: offset + n}
}

// extentOf is where a value's bytes are; false if nothing can be read of it.
func extentOf(v *target.Value) (Extent, bool) {
	switch {
	case v.Missing != "" || v.Kind == target.KindStruct || v.Kind == target.KindOther:
		return Extent{}, false
	case v.Kind == target.KindString, v.Kind == target.KindBytes:
		return textAt(&v.Data, v.Offset, math.MaxInt32), true
	case v.Kind == target.KindCString && v.Capacity > 0:
		return textAt(&v.Data, v.Offset, int64(v.Capacity)), true
	case v.Kind == target.KindCString:
		return textAt(&v.Data, v.Offset, math.MaxInt32), true
	default:
		return scalarAt(&v.Data, v.Size), true
	}
}

// withhold decides about every value of one side of a call, entry or return: as the rules do about it, and no weaker than they do about another
// one that has a byte in common with it.
func (c *compiler) withhold(values []*target.Value, atReturn bool) {
	own := make([]redact.Decision, len(values))
	extents := make([]*Extent, len(values))
	for i, v := range values {
		own[i] = c.decideAlone(v)
		e, readable := extentOf(v)
		if !readable {
			continue
		}
		extents[i] = &e
		w := Withheld{Path: v.Path, Action: own[i].Action.String(), Rule: own[i].Rule, Return: atReturn, At: e}
		if own[i].Action.Kind != redact.Keep && !slices.ContainsFunc(c.plan.Withheld, func(o Withheld) bool { return o.Path == w.Path && o.Return == atReturn && o.At.same(&e) }) {
			c.plan.Withheld = append(c.plan.Withheld, w)
		}
	}
	for i, v := range values {
		d := own[i]
		for j := range values {
			if i == j || extents[i] == nil || extents[j] == nil || !extents[i].overlaps(extents[j]) {
				continue
			}
			if both := d.With(own[j].Action, own[j].Rule).For(string(v.Kind)); both.Action != d.Action {
				both.Note = "the same bytes as " + values[j].Path
				d = both
			}
		}
		c.decisions[v] = d
	}
}

func (e *Extent) same(other *Extent) bool {
	return e.overlaps(other) && e.From == other.From && e.To == other.To
}

// A place is what a slot holds while a plan is proved.
type place target.Location

func (p *place) load(off int32) place {
	return place{Register: p.Register, Shift: p.Shift, Offsets: append(p.Offsets[:len(p.Offsets):len(p.Offsets)], int64(off))}
}

// extent is where the bytes are that an op lets out or compares.
func (v *verifier) extent(op Op) Extent {
	at := target.Location(v.slots[op.Src].at)
	switch op.Code {
	case OpBytes, OpCStr, OpIfBytes, OpIfCStr:
		return textAt(&at, int64(op.Off), int64(max(op.N, 1)))
	default:
		return scalarAt(&at, int(op.Arg))
	}
}

// withheld proves that an op lets out nothing of what another value's action withholds.
func (v *verifier) withheld(op Op, path string, may func(redact.Action) bool) error {
	e := v.extent(op)
	for i := range v.plan.Withheld {
		w := &v.plan.Withheld[i]
		if w.Return != v.atReturn || !w.At.overlaps(&e) {
			continue
		}
		action, err := redact.ParseAction(w.Action)
		if err != nil {
			return err
		}
		if !may(action) {
			return fmt.Errorf("%s has bytes of %s, which is redacted (%s, rule %s)", path, w.Path, w.Action, w.Rule)
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Verify proves what a plan promises, whoever made it: each op is one that the kernel knows, with every number in range;
// no slot is used before it is filled, and none is filled in vain; the emitting ops and the emitting fields are the same, in
// the same order, with the same actions, so that no op emits a dropped value or reads on the way to one; conditions look only at
// values that are kept; the longest record fits. The error of a plan that it refuses ends with the plan's listing.
func (p *Plan) Verify() error {
	if err := p.verify(); err != nil {
		return fmt.Errorf("verify plan: %w\n%s", err, p.Listing())
	}
	return nil
}

func (p *Plan) verify() error {
	if len(p.Sites) == 0 || len(p.Sites) > target.MaxSites {
		return fmt.Errorf("%d sites; want 1 to %d", len(p.Sites), target.MaxSites)
	}
	if err := p.Limits.verify(); err != nil {
		return err
	}
	if len(p.Ops) > MaxOps || p.IfEnd < 0 || p.IfEnd > len(p.Ops) || len(p.Pool) > poolBytes {
		return fmt.Errorf("%d ops of which %d decide, with %d bytes of constants: out of bounds", len(p.Ops), p.IfEnd, len(p.Pool))
	}
	if err := p.verifySets(); err != nil {
		return err
	}
	if start, total := p.layout(); start > maxStart || total > MaxOut {
		return fmt.Errorf("a record of %d bytes, whose last value begins at %d, does not fit", total, start)
	}
	for i := range p.Fields {
		if err := p.Fields[i].verify(p.Identity.Kernel != ""); err != nil {
			return fmt.Errorf("field %d (%.64s): %w", i, p.Fields[i].Path, err)
		}
	}
	if err := p.Returns.verify(p); err != nil {
		return fmt.Errorf("returns: %w", err)
	}
	return errors.Join(p.verifyAggregate(), p.verifyStack(), p.verifyOps())
}

func (l *Limits) verify() error {
	if l.TTL < time.Second || l.TTL > probe.MaxTTL || l.Rate == 0 || l.Rate > probe.MaxRate || l.MaxBytes == 0 ||
		l.MaxBytes > probe.MaxBytes || l.ValueBytes == 0 || l.ValueBytes > MaxValue || l.Budget == 0 || l.Budget > probe.MaxBudget {
		return fmt.Errorf("limits %+v: out of bounds", *l)
	}
	return nil
}

// verify says whether a field's parts agree with each other.
func (f *Field) verify(kernel bool) error {
	action, err := redact.ParseAction(f.Action)
	if err != nil {
		return err
	}
	dropped := action.Kind == redact.Drop
	switch {
	case f.Rule == "":
		return errors.New("no rule decided about it")
	case dropped != (f.Missing == event.Redacted):
		return fmt.Errorf("the action is %s, and the reason %q", action, f.Missing)
	case f.Emits != (f.Missing == ""):
		return fmt.Errorf("emits is %v, and the reason that it is missing %q", f.Emits, f.Missing)
	case f.Emits && !readable(f.Kind, f.Size):
		return fmt.Errorf("no op reads a %s of %d bytes", f.Kind, f.Size)
	case f.Kind == target.KindPointer && f.Emits && kernel:
		return errors.New("an address of the kernel's is emitted")
	case action.Kind == redact.Bucket && f.BigEndian:
		return errors.New("the bucket of a number in another byte order would be that of another number")
	case action.For(string(f.Kind)) != action:
		return fmt.Errorf("%s means nothing for a value of kind %s", action, f.Kind)
	case f.MaxBytes < 0 || f.MaxBytes > MaxValue || !f.Emits && f.MaxBytes != 0:
		return fmt.Errorf("%d bytes at most", f.MaxBytes)
	}
	return nil
}

// readable says whether there is an op for values of a kind and size.
func readable(k target.Kind, size int) bool {
	switch k {
	case target.KindString, target.KindBytes, target.KindCString:
		return true
	case target.KindError:
		return size == 1
	case target.KindInt, target.KindUint, target.KindBool, target.KindFloat, target.KindPointer, target.KindLength:
		return size > 0 && size <= 8 && scalar(uint8(size))
	default:
		return false
	}
}

// verifyOps walks the ops as the kernel does: those of the entry, then, with nothing left of them, those of the return.
func (p *Plan) verifyOps() error {
	v := verifier{plan: p, fields: p.Fields, wanted: p.Conditions}
	end := p.EntryEnd()
	for i, op := range p.Ops[:end] {
		if err := v.op(op, i < p.IfEnd); err != nil {
			return fmt.Errorf("op %d: %w", i, err)
		}
	}
	if p.Goroutine && !v.goroutine {
		return errors.New("no op emits the goroutine's number")
	}
	if err := v.end(); err != nil || p.Returns == nil {
		return err
	}
	v = verifier{plan: p, fields: p.Returns.Results, wanted: p.Returns.Conditions, goroutine: true, atReturn: true}
	for i, op := range p.Ops[end:] {
		if op.Code.compares() && op.Code != OpIfInt {
			return fmt.Errorf("op %d: compares text at the return, where no memory is for it", end+i)
		}
		if err := v.op(op, end+i < p.Returns.IfEnd); err != nil {
			return fmt.Errorf("op %d: %w", end+i, err)
		}
	}
	return v.end()
}

// end says whether the ops of one side did all that there was to do, and nothing in vain.
func (v *verifier) end() error {
	for slot, s := range v.slots {
		if s.filled && !s.used {
			return fmt.Errorf("slot %d is filled for nothing", slot)
		}
	}
	if v.conditions != len(v.wanted) {
		return fmt.Errorf("%d comparing ops for %d conditions", v.conditions, len(v.wanted))
	}
	if f := v.nextField(); f != nil {
		return fmt.Errorf("no op emits the field %s", f.Path)
	}
	return nil
}

type verifier struct {
	plan   *Plan
	fields []Field     // to be emitted on this side
	wanted []Condition // to be compared on this side
	slots  [MaxSlots]struct {
		filled, used, user bool
		at                 place
	}
	atReturn   bool
	conditions int  // comparing ops so far
	goroutine  bool // its number was emitted
	field      int  // all fields before this one are dealt with
}

func (v *verifier) op(op Op, deciding bool) error {
	switch {
	case op.Dst >= MaxSlots || op.Src >= MaxSlots:
		return fmt.Errorf("slot %d or %d is out of range", op.Dst, op.Src)
	case op.Code.emits() && deciding:
		return errors.New("emits before the conditions are through")
	case op.Code.compares() && !deciding:
		return errors.New("compares behind the conditions")
	case !op.Code.emits() && op.Action != 0:
		return errors.New("has an action and does not emit")
	case op.User && (v.plan.Identity.Kernel == "" || !op.Code.reads()):
		return errors.New("reads memory of a process where there is no other, or nothing")
	}
	switch op.Code {
	case OpReg:
		if op.Arg >= maxRegs || op.N > 7 || op.Src != 0 || op.Off != 0 || op.Aux != 0 {
			return errors.New("no such register, or shift")
		}
		err := v.fill(op.Dst)
		v.slots[op.Dst].at = place{Register: int(op.Arg), Shift: int(op.N)}
		return err
	case OpLoad:
		if !scalar(op.Arg) || op.N != 0 || op.Aux != 0 {
			return fmt.Errorf("a load of %d bytes", op.Arg)
		}
		if err := v.use(op.Src); err != nil {
			return err
		}
		if err := v.follow(op); err != nil {
			return err
		}
		at := v.slots[op.Src].at.load(op.Off)
		err := v.fill(op.Dst)
		v.slots[op.Dst].user, v.slots[op.Dst].at = op.User, at
		return err
	case OpTest:
		if op != (Op{Code: OpTest, Dst: op.Dst, Src: op.Src}) {
			return errors.New("tests more than one slot")
		}
		if err := v.use(op.Src); err != nil {
			return err
		}
		at := v.slots[op.Src].at
		err := v.fill(op.Dst)
		v.slots[op.Dst].at = at
		return err
	case OpEmit:
		if !scalar(op.Arg) || op.Dst != 0 {
			return fmt.Errorf("emits a number of %d bytes", op.Arg)
		}
		return errors.Join(v.use(op.Src), v.emit(op))
	case OpBytes:
		return errors.Join(v.follow(op), v.use(op.Src), v.use(op.Dst), v.emit(op))
	case OpCStr:
		if op.Arg != 0 || op.Dst != 0 {
			return errors.New("a C string has neither a size nor a slot with its length")
		}
		return errors.Join(v.follow(op), v.use(op.Src), v.emit(op))
	case OpIfInt:
		if !scalar(op.Arg) || op.Dst != 0 || op.Off != 0 || uint8(op.N)&^CmpSigned > CmpGE || op.N > 0xff {
			return errors.New("no such comparison")
		}
		return errors.Join(v.use(op.Src), v.condition(op, 8))
	case OpIfBytes, OpIfCStr:
		if op.Arg > CmpNE || op.N > probe.MaxLiteralBytes || op.Code == OpIfCStr && op.Dst != 0 {
			return errors.New("no such comparison")
		}
		err := errors.Join(v.follow(op), v.use(op.Src))
		if op.Code == OpIfBytes {
			err = errors.Join(err, v.use(op.Dst))
		}
		return errors.Join(err, v.condition(op, int(op.N)))
	default:
		return fmt.Errorf("unknown code %d", op.Code)
	}
}

func scalar(size uint8) bool { return size == 1 || size == 2 || size == 4 || size == 8 }

// fill notes that a slot holds something new. What it held must have been of use: a read that serves no emitted value and
// no condition is a read of something else.
func (v *verifier) fill(slot uint8) error {
	s := &v.slots[slot]
	if s.filled && !s.used {
		return fmt.Errorf("slot %d is filled again before it was used", slot)
	}
	s.filled, s.used, s.user = true, false, false
	return nil
}

// follow refuses to take an address that was read from a process's memory for one of the kernel's: the process would choose
// what is read.
func (v *verifier) follow(op Op) error {
	if v.slots[op.Src].user && !op.User {
		return fmt.Errorf("slot %d is from a process's memory and followed in the kernel's", op.Src)
	}
	return nil
}

func (v *verifier) use(slot uint8) error {
	s := &v.slots[slot]
	if !s.filled {
		return fmt.Errorf("slot %d is used before it is filled", slot)
	}
	s.used = true
	return nil
}

func (v *verifier) condition(op Op, n int) error {
	aux := int(op.Aux)
	if aux+n > len(v.plan.Pool) || aux%8 != 0 {
		return fmt.Errorf("a constant of %d bytes at %d is not in the pool", n, aux)
	}
	if v.conditions >= len(v.wanted) {
		return errors.New("compares without a condition")
	}
	c := &v.wanted[v.conditions]
	v.conditions++
	action, err := redact.ParseAction(c.Action)
	var magnitude uint64
	if op.Code == OpIfInt {
		magnitude = binary.LittleEndian.Uint64(v.plan.Pool[aux:])
		if unused := 64 - 8*op.Arg; op.N&uint32(CmpSigned) != 0 && int64(magnitude<<unused) < 0 {
			magnitude = -uint64(int64(magnitude<<unused) >> unused)
		}
	}
	if err != nil || !mayCompare(action, magnitude) || c.Rule == "" {
		return fmt.Errorf("compares %s, which is redacted (%s)", c.Path, c.Action)
	}
	return v.withheld(op, c.Path, func(a redact.Action) bool { return mayCompare(a, magnitude) })
}

// nextField is the next field that an op has to emit; nil if there is none.
func (v *verifier) nextField() *Field {
	for ; v.field < len(v.fields); v.field++ {
		if f := &v.fields[v.field]; f.Emits {
			return f
		}
	}
	return nil
}

// emit compares an emitting op with the field that it emits.
func (v *verifier) emit(op Op) error {
	if v.plan.Goroutine && !v.goroutine {
		v.goroutine = true
		if op != (Op{Code: OpEmit, Src: op.Src, Arg: goroutineBytes}) {
			return errors.New("the first value is not the goroutine's number")
		}
		return v.withheld(op, "the goroutine's number", func(redact.Action) bool { return false })
	}
	f := v.nextField()
	if f == nil {
		return errors.New("emits a value that no field stands for")
	}
	v.field++
	action, err := redact.ParseAction(f.Action)
	if err != nil {
		return err
	}
	var as Op
	v.plan.act(&as, action, f.Kind)
	if action.Kind == redact.Drop || action.Sets != "" && int(as.Aux) >= len(v.plan.Sets) || op.Action != as.Action || op.Aux != as.Aux ||
		op.Code == OpEmit && (op.Off != as.Off || op.N != as.N) {
		return fmt.Errorf("emits %s otherwise than as %s", f.Path, action)
	}
	want, longest := OpEmit, f.Size
	switch f.Kind {
	case target.KindString, target.KindBytes:
		want, longest = OpBytes, int(op.N)
	case target.KindCString:
		want, longest = OpCStr, int(op.N)
	}
	if op.Code != want || want == OpEmit && int(op.Arg) != f.Size || want == OpBytes && op.Arg != 0 {
		return fmt.Errorf("emits %s, a %s of %d bytes, as something else", f.Path, f.Kind, f.Size)
	}
	if want != OpEmit && (op.N > v.plan.Limits.ValueBytes || op.N == 0) || leaves(action, longest) != f.MaxBytes {
		return fmt.Errorf("%s can have another length than the %d bytes of its field", f.Path, f.MaxBytes)
	}
	return v.withheld(op, f.Path, func(a redact.Action) bool { return redact.Stricter(action, a) == action })
}

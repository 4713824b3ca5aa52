// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

const scratchMap = "kh_scratch"

// A progress is how far a claimed slot is zeroed again.
type progress uint16

const (
	held progress = 1 << iota
	cleanIn
	cleanOut
	cleanText
	cleanMarks
	cleanScan
	zeroIn // the word that says how much is to be zeroed, and so on
	zeroOut
	zeroText
	zeroOuter
	zeroWaiting

	zeroed = held | cleanIn | cleanOut | cleanText | cleanMarks | cleanScan | zeroIn | zeroOut | zeroText | zeroOuter | zeroWaiting
)

// cleanIfZero is what is known to hold zeros if the word that counts it is 0.
var cleanIfZero = [...]progress{tagIn: cleanIn, tagOut: cleanOut, tagText: cleanText | cleanMarks | cleanScan, tagDecides: 0}

// A part of the scratch.
type part struct {
	name     string
	from, to int64 // to is behind the last byte
	clean    progress
	counted  tag   // of the number of bytes that zeroing it takes; untagged: all
	secret   bool  // holds what is not redacted
	most     int64 // of a number that it holds; 0: it is none
	tag      tag
	zero     progress
}

type layout struct {
	parts            []part
	claimed          int64
	in, waiting, out part
	scanN            int64
	mostOut, most    int64
}

func layoutOf(maps map[string]*ebpf.MapSpec) (layout, error) {
	l := layout{mostOut: int64(UprobeKhLimitKH_MAX_OUT), most: int64(UprobeKhLimitKH_MAX_VALUE)}
	m := maps[scratchMap]
	if m == nil {
		return l, errors.New("there is no scratch")
	}
	slot, ok := m.Value.(*btf.Struct)
	if !ok {
		return l, errors.New("the scratch holds no slots")
	}
	known := map[string]part{
		"claimed": {}, "in": {clean: cleanIn, counted: tagIn, secret: true}, "waiting": {}, "out": {clean: cleanOut, counted: tagOut},
		"text": {clean: cleanText, counted: tagText, secret: true}, "marks": {clean: cleanMarks, counted: tagTextMarks, secret: true},
		"scan": {clean: cleanScan, secret: true}, "in_used": {tag: tagIn, zero: zeroIn}, "out_used": {tag: tagOut, zero: zeroOut},
		"text_used": {tag: tagText, zero: zeroText},
	}
	for _, member := range slot.Members {
		p, ok := known[member.Name]
		if !ok {
			return l, fmt.Errorf("a slot has a part %s, of which it is not known what may be in it", member.Name)
		}
		size, err := btf.Sizeof(member.Type)
		if err != nil {
			return l, err
		}
		p.name, p.from = member.Name, int64(member.Offset.Bytes())
		p.to = p.from + int64(size)
		l.parts = append(l.parts, p)
		switch p.name {
		case "claimed":
			l.claimed = p.from
		case "in":
			l.in = p
		case "waiting":
			l.waiting = p
		case "out":
			l.out = p
		case "scan":
			l.scanN = p.from // its first word
		}
	}
	if len(l.parts) != len(known) {
		return l, fmt.Errorf("a slot has %d parts; want %d", len(l.parts), len(known))
	}
	for i := range l.parts {
		switch p := &l.parts[i]; p.tag {
		case tagIn:
			p.most = l.in.to - l.in.from
		case tagOut:
			p.most = l.out.to - l.out.from
		case tagText:
			p.most = l.most
		}
	}
	return l, nil
}

// at is the part of a slot that an access of some bytes is in. An index into the marks that is not followed is taken to stay
// there: the kernel's verifier sees that it stays in the slot.
func (l *layout) at(p value, offset, size int64) (*part, error) {
	lo, hi := p.lo+offset, p.hi
	if hi < math.MaxInt64-offset-size {
		hi += offset + size
	}
	for i := range l.parts {
		part := &l.parts[i]
		if lo >= part.from && lo < part.to && (hi <= part.to || part.name == "marks" && p.lo != p.hi) {
			return part, nil
		}
	}
	return nil, fmt.Errorf("bytes [%d, %d) of a slot are in no one part of it", lo, hi)
}

// load is what an access reads.
func (l *linter) load(s *state, p value, offset, size int64) (value, error) {
	top := unknown(0)
	if size < 8 {
		top = between(0, 1<<(8*size)-1, 0)
	}
	switch p.kind {
	case stack:
		f := s.frames[p.at]
		first := p.lo + offset + 512
		if p.lo != p.hi || first < 0 || first+size > 512 {
			for _, w := range f {
				top.taint |= w.taint
			}
			return top, nil
		}
		if w := f[first/4]; first%4 == 0 && int64(w.bytes) == size {
			return w.value, nil
		}
		for b := first; b < first+size; b++ {
			top.taint |= f[b/4].taint
		}
		return top, nil
	case context:
		top.taint = fromTarget
		return top, nil
	case tables:
		return l.table(s, p, offset, size, top), nil
	case mapValue:
		top.taint = p.taint & fromInput
		if p.name() != scratchMap {
			return top, nil
		}
		part, err := l.layout.at(p, offset, size)
		if err != nil {
			// What the record was redacted to and what it was made of, at once: the worse of the two.
			top.taint |= fromInput | fromTarget
			return top, nil //nolint:nilerr // a read of both is no harm by itself
		}
		if part.secret {
			top.taint |= fromInput
		}
		if part.name == "out" {
			top.taint |= fromTarget
		}
		if part.name == "scan" && p.lo == p.hi && p.lo+offset == l.layout.scanN && size == 4 {
			top.hi = l.layout.most
		}
		if part.tag != untagged && p.lo == p.hi && size == 4 {
			top.hi, top.tag = part.most, part.tag
		}
		return top, nil
	case number: // of the kernel's: the verifier knows what it is
		top.taint = p.taint
		return top, nil
	}
	return top, fmt.Errorf("reads through what is no pointer (%+v)", p)
}

// table is what the frozen tables hold, as plan.Verify lets it through and the loader fills it.
func (l *linter) table(s *state, p value, offset, size int64, top value) value {
	v := l.variables["ops"]
	at := p.lo + offset
	if c := l.variables["config"]; p.lo == p.hi && at == c.from+configMachines && size == 4 {
		top.hi = int64(UprobeKhLimitKH_MAX_MACHINES)
	} else if p.lo == p.hi && at == c.from+configIfEnd && size == 4 {
		switch s.decides {
		case 1:
			top = constant(0)
		case 2:
			top.lo = 1
		}
		top.tag = tagDecides
	}
	if at < v.from || p.lo >= v.to || p.step < opBytes || opBytes == 0 {
		return top
	}
	switch field := (at - v.from) % opBytes; {
	case field == opN && size == 4:
		top.hi = l.layout.most
	case field == opArg && size == 1: // a register, or a size
		top.hi, top.most = int64(UprobeKhLimitKH_MAX_REGS)-1, 8
	case (field == opDst || field == opSrc) && size == 1:
		top.hi = int64(UprobeKhLimitKH_MAX_SLOTS) - 1
	}
	return top
}

// store checks and notes what an access writes.
func (l *linter) store(s *state, p value, offset, size int64, v value, in string) error {
	switch p.kind {
	case stack:
		return s.push(p, offset, size, v)
	case mapValue:
	default:
		return errors.New("writes to what is no memory of the program's")
	}
	if v.kind != number || v.tag == tagClaimed {
		return fmt.Errorf("stores a pointer in the map %s", p.name())
	}
	if words := p.name() == scratchMap && size == 8 && v.isConstant() && v.lo == 0 && p.lo == p.hi; words {
		if part, err := l.layout.at(p, offset, 4); err == nil && part.tag != untagged { // two of them at once
			if err := l.store(s, p, offset, 4, v, in); err != nil {
				return err
			}
			return l.store(s, p, offset+4, 4, v, in)
		}
	}
	taint := v.taint | p.taint
	if p.name() != scratchMap {
		return l.mayHold(p.name(), taint)
	}
	if s.slot&held == 0 {
		return errors.New("writes to a slot that is not claimed")
	}
	part, err := l.layout.at(p, offset, size)
	if err != nil {
		return err
	}
	zero := v.isConstant() && v.lo == 0
	if taint&fromInput != 0 && !part.secret && (part.name != "out" || in != copier) {
		return fmt.Errorf("stores what comes from the input in the part %s of a slot", part.name)
	}
	switch {
	case part.name == "claimed":
		if !zero || s.slot != zeroed {
			return fmt.Errorf("gives a slot back that is not zeroed: %011b", uint16(s.slot))
		}
		s.slot = 0
		return nil
	case part.name == "waiting":
		bit := zeroOuter
		if p.lo+offset >= part.from+8 {
			bit = zeroWaiting
		}
		s.slot &^= bit
		if zero {
			s.slot |= bit
		}
	case part.tag != untagged:
		if !v.bounded() || v.hi > part.most {
			return fmt.Errorf("stores a number of [%d, %d] bytes in %s", v.lo, v.hi, part.name)
		}
		s.slot &^= part.zero
		s.each(func(other *value) bool {
			return other.tag == part.tag || part.tag == tagText && (other.tag == tagText2 || other.tag == tagTextMarks)
		}, func(other *value) { other.tag = untagged })
		if zero {
			if clean := cleanIfZero[part.tag]; s.slot&clean == clean {
				s.slot |= part.zero
			}
		}
	default:
		if part.name == "scan" && p.lo+offset <= l.layout.scanN && (!v.bounded() || v.hi > l.layout.most) {
			return fmt.Errorf("a scan of [%d, %d] bytes", v.lo, v.hi)
		}
		s.slot &^= part.clean
	}
	return nil
}

// mayHold says whether a map other than the scratch may hold what depends on the input, or the target.
func (l *linter) mayHold(name string, taint uint8) error {
	m := l.maps[name]
	switch {
	case m == nil || name == "kh_patterns" || name == "kh_control":
		return fmt.Errorf("writes to the map %s", name)
	case taint&fromInput != 0:
		return fmt.Errorf("stores what comes from the input in the map %s", name)
	case taint&fromTarget != 0 && (name == "kh_counts" || name == "kh_state"):
		return fmt.Errorf("stores what comes from the target in the map %s", name)
	}
	return nil
}

// push notes what is stored on the stack.
func (s *state) push(p value, offset, size int64, v value) error {
	f := s.own(p.at)
	first := p.lo + offset + 512
	if p.lo != p.hi {
		if v.kind != number {
			return errors.New("stores a pointer at a place of the stack that is not known")
		}
		for i := range f { // the verifier sees that it is in the frame
			if int64(i)*4+4 > first {
				f[i] = joinWord(f[i], word{taint: f[i].taint | v.taint}, nil)
				f[i].taint |= v.taint
			}
		}
		return nil
	}
	if first < 0 || first+size > 512 {
		return errors.New("writes beyond the stack")
	}
	at := first / 4
	s.forget(f, first, size, v.taint)
	if first%4 == 0 && (size == 4 || size == 8) {
		if size == 4 {
			v = v.low()
		}
		f[at].value, f[at].bytes = v, int8(size)
	}
	return nil
}

// forget drops what is known of bytes of a frame.
func (s *state) forget(f *frame, first, size int64, taint uint8) {
	for i := max(first/4-1, 0); i <= (first+size-1)/4 && i < frameWords; i++ {
		if i < first/4 && f[i].bytes != 8 {
			continue
		}
		kept := f[i].taint
		if i*4 >= first && i*4+4 <= first+size {
			kept = 0
		}
		if i < first/4 {
			f[i].bytes, f[i].value = 0, value{}
			continue
		}
		f[i] = word{taint: kept | taint}
	}
}

// invoke is a call of a function of the program's own, at once or by bpf_loop.
func (l *linter) invoke(at int, i *asm.Instruction, s *state) ([]*state, error) {
	name, loop := i.Reference(), i.IsBuiltinCall()
	inner := s.clone()
	arguments := [6]value{}
	copy(arguments[:], s.regs[:6])
	if loop {
		count, body := s.regs[asm.R1], s.regs[asm.R2]
		if !count.bounded() || count.hi > mostTurns {
			return nil, fmt.Errorf("instruction %d (in %s): a loop of up to %d turns; want at most %d", at, l.names[at], count.hi, mostTurns)
		}
		if flags := s.regs[asm.R4]; body.kind != function || !flags.isConstant() || flags.lo != 0 {
			return nil, fmt.Errorf("instruction %d (in %s): a loop of what is no function", at, l.names[at])
		}
		name = l.names[body.at]
		arguments[1], arguments[2] = between(0, max(count.hi-1, 0), count.taint), s.regs[asm.R3]
	}
	start, ok := l.starts[name]
	if !ok {
		return nil, fmt.Errorf("instruction %d (in %s): calls %q, which is not there", at, l.names[at], name)
	}
	enter := func(from *state) *state {
		in := from.clone()
		in.pace = pace{}
		for r := range in.regs {
			in.regs[r] = value{kind: nothing}
		}
		copy(in.regs[1:6], arguments[1:6])
		in.frames = append(in.frames, new(frame))
		in.regs[asm.R10] = value{kind: stack, at: len(in.frames) - 1, step: 1 << 62}
		return in
	}
	leave := func(out *state) *state {
		result := out.regs[asm.R0]
		back := out.clone()
		back.frames = back.frames[:len(s.frames)]
		back.regs, back.pace, back.decides = s.regs, pace{}, s.decides
		back.each(func(v *value) bool { return v.tag != untagged }, func(v *value) { v.tag = untagged })
		for r := asm.R1; r <= asm.R5; r++ {
			back.regs[r] = value{kind: nothing}
		}
		if result.kind != number || loop || result.id != 0 {
			result = unknown(result.taint)
		}
		if name == hasher {
			result.taint &^= fromInput
		}
		if name == comparer || name == allower {
			result.taint &^= fromInput // whether it is equal, or is allowed: it decides, and is stored nowhere
		}
		back.set(asm.R0, result, at)
		return back
	}
	run := func(from *state) (*outcome, error) {
		in := enter(from)
		if m := l.memo[at]; m[0] != nil && m[0].covers(in) && len(m[0].states[in.slot].frames) == len(in.frames) {
			return m[1], nil
		}
		given := &outcome{states: map[progress]*state{in.slot: in.clone()}}
		out, err := l.function(start, in)
		if err == nil {
			l.memo[at] = [2]*outcome{given, out}
		}
		return out, err
	}
	if !loop {
		out, err := run(inner)
		if err != nil {
			return nil, err
		}
		var all []*state
		for _, o := range out.states {
			all = append(all, leave(o))
		}
		return all, nil
	}
	for turn := 0; ; turn++ {
		out, err := run(inner)
		if err != nil {
			return nil, err
		}
		changed := false
		var widen []int64
		if turn > afterTurns {
			widen = l.bounds
		}
		for _, o := range out.states {
			after := leave(o)
			after.slot = inner.slot // checked below: a loop leaves the progress as it is
			if o.slot != s.slot {
				inner.slot &= o.slot
				after.slot = inner.slot
				changed = changed || inner.slot != s.slot && turn == 0
			}
			after.regs, after.pace = inner.regs, inner.pace
			changed = inner.merge(after, widen) || changed
		}
		if !changed {
			inner.regs = s.regs
			return []*state{leave(withResult(inner))}, nil
		}
	}
}

func withResult(s *state) *state {
	s.regs[asm.R0] = unknown(0)
	return s
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Bounds of the walk: a program that needs more is refused.
const (
	mostDepth  = 8
	mostSteps  = 4_000_000
	afterTurns = 3 // joins of a place before its bounds are widened
)

// A word of a frame: 4 bytes, or 8 with the next.
type word struct {
	value value
	bytes int8 // 0: nothing that is known as a whole
	taint uint8
}

const frameWords = 512 / 4

type frame [frameWords]word

// A state is what is known before an instruction.
type state struct {
	regs   [11]value
	frames []*frame
	owned  uint16 // of the frames: nobody else has them
	slot   progress
	pace   pace
	// decides is what is known of the frozen number of ops that decide: 1 if there are none, 2 if there are some, 0 nothing.
	decides int8
}

// A pace is how two registers of a loop go on together: one is by times the other, and from lo to hi more.
type pace struct {
	one, other asm.Register
	by, lo, hi int64 // by 0: nothing is known
}

// holds says whether the other is a constant, and it is so.
func (p *pace) holds(s *state) bool {
	a, b := &s.regs[p.one], &s.regs[p.other]
	return a.bounded() && b.bounded() && b.isConstant() && a.lo >= p.by*b.lo+p.lo && a.hi <= p.by*b.lo+p.hi
}

// paceOf looks for two registers that went on by constants, one from a constant.
func paceOf(before, after *state) pace {
	for i := range before.regs {
		a, c := &before.regs[i], &after.regs[i]
		if !a.bounded() || !c.bounded() || c.lo <= a.lo || c.hi-c.lo != a.hi-a.lo || c.hi > math.MaxInt32 {
			continue
		}
		for j := range before.regs {
			b, d := &before.regs[j], &after.regs[j]
			if !b.bounded() || !d.bounded() || !b.isConstant() || !d.isConstant() || d.lo <= b.lo || d.lo > math.MaxInt32 || (c.lo-a.lo)%(d.lo-b.lo) != 0 || (c.lo-a.lo) == (d.lo-b.lo) {
				continue
			}
			by := (c.lo - a.lo) / (d.lo - b.lo)
			return pace{asm.Register(i), asm.Register(j), by, a.lo - by*b.lo, a.hi - by*b.lo}
		}
	}
	return pace{}
}

// keep bounds one register by the other.
func (p *pace) keep(s *state) {
	if a, b := &s.regs[p.one], &s.regs[p.other]; p.by > 0 && b.bounded() && b.hi < math.MaxInt32 && a.kind == number {
		if a.wide && !a.isConstant() {
			a.wide, a.lo, a.hi = false, max(0, p.lo), math.MaxInt64
		}
		a.hi = min(a.hi, p.by*b.hi+p.hi)
	}
}

// change notes that a register has got another value, or is the old one and an added constant.
func (p *pace) change(r asm.Register, added int64, known bool) {
	switch {
	case p.by == 0 || r != p.one && r != p.other:
	case !known:
		p.by = 0
	case r == p.one:
		p.lo, p.hi = p.lo+added, p.hi+added
	default:
		p.lo, p.hi = p.lo-p.by*added, p.hi-p.by*added
	}
}

func (s *state) clone() *state {
	s.owned = 0
	c := *s
	c.frames = slices.Clone(s.frames)
	return &c
}

// own is a frame that no other state has, to be changed.
func (s *state) own(at int) *frame {
	if s.owned>>at&1 == 0 {
		copied := *s.frames[at]
		s.frames[at] = &copied
		s.owned |= 1 << at
	}
	return s.frames[at]
}

func joinWord(a, b word, widen []int64) word {
	if a == b {
		return a
	}
	w := word{taint: a.taint | b.taint}
	if a.bytes == b.bytes && a.bytes != 0 {
		w.bytes, w.value = a.bytes, join(a.value, b.value, widen)
		return w
	}
	for _, one := range []word{a, b} { // a pointer that one way has there
		if one.bytes == 8 && one.value.kind != number {
			w.bytes, w.value = 8, join(one.value, unknown(w.taint), nil)
		}
	}
	return w
}

// merge makes s cover other, too, and says whether it did not.
func (s *state) merge(other *state, widen []int64) (changed bool) {
	both := s.pace
	if found := paceOf(s, other); both.by == 0 && found.by != 0 && other.pace.by == 0 {
		both = found
	} else if both != other.pace && !both.holds(other) {
		if both = (pace{}); other.pace.by != 0 && other.pace.holds(s) {
			both = other.pace
		}
	}
	changed = both != s.pace
	s.pace = both
	defer func() { s.pace.keep(s) }()
	for i := range s.regs {
		v := join(s.regs[i], other.regs[i], widen)
		changed = changed || v != s.regs[i]
		s.regs[i] = v
	}
	for at, f := range s.frames {
		g := other.frames[at]
		if f == g || *f == *g {
			continue
		}
		for i := range f {
			if f[i] == g[i] {
				continue
			}
			if w := joinWord(f[i], g[i], widen); w != f[i] {
				f = s.own(at)
				f[i], changed = w, true
			}
		}
	}
	return changed
}

// each changes all values for which there is a change.
func (s *state) each(wants func(v *value) bool, do func(v *value)) {
	for i := range s.regs {
		if wants(&s.regs[i]) {
			do(&s.regs[i])
		}
	}
	for at, f := range s.frames {
		for i := range f {
			if f[i].bytes != 0 && wants(&f[i].value) {
				f = s.own(at)
				do(&f[i].value)
			}
		}
	}
}

// A linter walks one program.
type linter struct {
	program *ebpf.ProgramSpec
	maps    map[string]*ebpf.MapSpec
	layout  layout
	kernel  bool

	starts    map[string]int // of functions
	targets   map[int]int    // of jumps, by the instruction
	names     []string       // of the function that an instruction is of
	bounds    []int64        // numbers that the program compares with
	steps     int
	memo      map[int][2]*outcome    // of calls, by the instruction
	visit     func(at int, s *state) // of each instruction that can be reached, with what is known before it; nil: none
	tested    []asm.Register         // by a jump right behind an instruction; R10: none
	meets     []bool                 // instructions that are jumped to
	variables map[string]part        // of .rodata
}

// An outcome is what a function was given, or leaves, for each progress of the slot.
type outcome struct{ states map[progress]*state }

func (o *outcome) covers(in *state) bool {
	s := o.states[in.slot]
	return s != nil && !s.clone().merge(in, nil)
}

func newLinter(p *ebpf.ProgramSpec, maps map[string]*ebpf.MapSpec, kernel bool) (*linter, error) {
	l := &linter{program: p, maps: maps, kernel: kernel, starts: map[string]int{}, targets: map[int]int{}, memo: map[int][2]*outcome{}}
	l.meets = make([]bool, len(p.Instructions))
	raw := map[asm.RawInstructionOffset]int{}
	for it := p.Instructions.Iterate(); it.Next(); {
		raw[it.Offset] = it.Index
		if name := it.Ins.Symbol(); name != "" {
			l.starts[name] = it.Index
		}
		name := it.Ins.Symbol()
		if name == "" && it.Index > 0 {
			name = l.names[it.Index-1]
		}
		l.names = append(l.names, name)
		if c := it.Ins.Constant; c > 0 && it.Ins.Reference() == "" {
			for _, add := range []int64{-1, 0, 1, 8, 16} {
				l.bounds = append(l.bounds, c+add)
			}
		}
	}
	slices.Sort(l.bounds)
	l.bounds = slices.Compact(l.bounds)
	for it := p.Instructions.Iterate(); it.Next(); {
		op := it.Ins.OpCode.JumpOp()
		if op == asm.InvalidJumpOp || op == asm.Call || op == asm.Exit {
			continue
		}
		by := int64(it.Ins.Offset)
		if it.Ins.OpCode.Class() == asm.Jump32Class && op == asm.Ja {
			by = it.Ins.Constant
		}
		to, ok := raw[it.Offset+it.Ins.Width()+asm.RawInstructionOffset(by)]
		if !ok {
			return nil, fmt.Errorf("instruction %d jumps nowhere", it.Index)
		}
		l.targets[it.Index], l.meets[to] = to, true
	}
	for at := range p.Instructions {
		l.tested = append(l.tested, asm.R10)
		for next := at; next < min(at+4, len(p.Instructions)); next++ {
			i := &p.Instructions[next]
			if op := i.OpCode.JumpOp(); op != asm.InvalidJumpOp {
				if (op == asm.JEq || op == asm.JNE) && i.OpCode.Source() == asm.ImmSource {
					l.tested[at] = i.Dst
				}
				break
			}
		}
	}
	var err error
	l.layout, err = layoutOf(maps)
	return l, err
}

// choices are the small constants that registers hold while no slot is claimed: by these the program itself remembers which way it took to
// claim one, so the ways are kept apart. The last is
// what the jump right behind a place decides by.
type choices [6]int8

func (s *state) choices(tested asm.Register) (c choices) {
	c[5] = s.decides
	if v := &s.regs[tested]; tested != asm.R10 && v.isConstant() && v.lo >= 0 && v.lo < 2 {
		c[4] = 1 + int8(v.lo)
	}
	if len(s.frames) > 1 || s.slot != 0 {
		return c
	}
	for i := range c[:4] {
		if v := &s.regs[int(asm.R6)+i]; v.isConstant() && v.lo >= 0 && v.lo < 8 {
			c[i] = 1 + int8(v.lo)
		}
	}
	return c
}

// function walks one from its first instruction, in every state that it may begin in, until nothing new is found, and says in which it ends.
func (l *linter) function(start int, in *state) (*outcome, error) {
	if len(in.frames) > mostDepth {
		return nil, fmt.Errorf("instruction %d: calls that are %d deep", start, len(in.frames))
	}
	type place struct {
		at      int
		slot    progress
		choices choices
	}
	first := place{start, in.slot, choices{}}
	known := map[place]*state{first: in}
	turns := map[place]int{}
	queue := []place{first}
	queued := map[place]bool{queue[0]: true}
	ends := &outcome{states: map[progress]*state{}}
	reach := func(at int, s *state) {
		p := place{at, s.slot, s.choices(l.tested[at])}
		old := known[p]
		if old == nil {
			known[p] = s.clone()
		} else {
			var widen []int64
			if turns[p]++; turns[p] > afterTurns {
				widen = l.bounds
			}
			if !old.merge(s, widen) {
				return
			}
		}
		if !queued[p] {
			queued[p] = true
			queue = append(queue, p)
		}
	}
	for len(queue) > 0 {
		least := 0 // in the order of the program, so that ways meet before they go on
		for i, p := range queue {
			if p.at < queue[least].at {
				least = i
			}
		}
		p := queue[least]
		queue = slices.Delete(queue, least, least+1)
		queued[p] = false
		s := known[p].clone()
		for at := p.at; ; {
			if l.steps++; l.steps > mostSteps {
				return nil, fmt.Errorf("instruction %d: no end after %d steps", at, mostSteps)
			}
			if at >= len(l.program.Instructions) {
				return nil, fmt.Errorf("instruction %d is behind the last one", at)
			}
			if l.visit != nil {
				l.visit(at, s)
			}
			i := &l.program.Instructions[at]
			op := i.OpCode.JumpOp()
			switch {
			case op == asm.Exit:
				if old := ends.states[s.slot]; old == nil {
					ends.states[s.slot] = s.clone()
				} else {
					old.merge(s, nil)
				}
			case op == asm.Ja:
				reach(l.targets[at], s)
			case i.IsFunctionCall() || i.IsBuiltinCall() && asm.BuiltinFunc(i.Constant) == asm.FnLoop:
				results, err := l.invoke(at, i, s)
				if err != nil {
					return nil, err
				}
				for _, r := range results {
					reach(at+1, r)
				}
			case op == asm.Call:
				if err := l.helper(i, s); err != nil {
					return nil, fmt.Errorf("instruction %d (in %s): %v: %w", at, l.names[at], asm.BuiltinFunc(i.Constant), err)
				}
				at++
				continue
			case op != asm.InvalidJumpOp:
				taken := s.clone()
				if l.branch(taken, i, op, true) {
					reach(l.targets[at], taken)
				}
				if l.branch(s, i, op, false) {
					reach(at+1, s)
				}
			default:
				if err := l.step(at, i, s); err != nil {
					return nil, fmt.Errorf("instruction %d (in %s): %v: %w", at, l.names[at], i, err)
				}
				at++
				if at < len(l.meets) && l.meets[at] {
					reach(at, s)
					break
				}
				continue
			}
			break
		}
	}
	return ends, nil
}

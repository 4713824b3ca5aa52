// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// MaxHints is how many hints a gate has at most: a word's bits.
const MaxHints = 16

// A Gate goes over a text once, before all machines, and tells which of them need not run: every match of a machine has its hint in it, and
// where the gate did not see that hint nothing matches. It is immutable.
type Gate struct {
	// Class of each byte. Letters are alike in either case, and so are all bytes that are not ASCII.
	Class   [256]uint8
	Classes int
	Next    []uint16 // state*Classes+class, as in a Table; it begins in state 0
	Seen    []uint16 // of each state: the hints that end at the byte that led to it, by their bits
}

// NewGate makes a gate of hints: patterns in Go's syntax, in lower case, of ASCII, without assertions, each matching at least one byte.
func NewGate(hints []string) (*Gate, error) {
	if len(hints) > MaxHints {
		return nil, fmt.Errorf("%d hints; at most %d", len(hints), MaxHints)
	}
	b, ends, starts := new(builder), make(map[int]int), []int(nil)
	for i, hint := range hints {
		re, err := syntax.Parse(hint, syntax.Perl)
		if err != nil {
			return nil, fmt.Errorf("hint %q: %w", hint, err)
		}
		end := b.add(inst{op: opMatch})
		ends[end] = i
		starts = append(starts, b.node(re.Simplify(), end))
		if b.err != nil {
			return nil, fmt.Errorf("hint %q: %w", hint, b.err)
		}
	}
	for _, i := range b.insts {
		if i.op == opEmpty || i.op == opBytes && (i.hi >= 0x80 || i.lo <= 'Z' && i.hi >= 'A') {
			return nil, fmt.Errorf("hints %q: one has an assertion, a capital, or what is not ASCII", hints)
		}
	}
	g := new(Gate)
	g.classify(b)
	if err := g.determinize(b, starts, ends); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gate) classify(b *builder) {
	var all [256]uint8
	classify(&all, b)
	numbers := make(map[uint8]uint8)
	for c := range 256 {
		like := c
		if 'A' <= c && c <= 'Z' {
			like |= 0x20
		}
		n, ok := numbers[all[like]]
		if !ok {
			n = uint8(len(numbers))
			numbers[all[like]] = n
		}
		g.Class[c] = n
	}
	g.Classes = len(numbers)
}

func (g *Gate) determinize(b *builder, starts []int, ends map[int]int) error {
	type state struct {
		at   []int
		seen uint16
	}
	var states []state
	ids := make(map[string]uint16)
	visited, walk := make([]int, len(b.insts)), 0
	closure := func(from []int) state {
		walk++
		var s state
		for stack := slices.Concat(from, starts); len(stack) > 0; {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if visited[i] == walk {
				continue
			}
			visited[i] = walk
			switch in := b.insts[i]; in.op {
			case opMatch:
				s.seen |= 1 << ends[i]
			case opSplit:
				stack = append(stack, in.out, in.alt)
			case opBytes:
				s.at = append(s.at, i)
			}
		}
		slices.Sort(s.at)
		return s
	}
	id := func(s state) uint16 {
		key := binary.LittleEndian.AppendUint16(nil, s.seen)
		for _, i := range s.at {
			key = binary.LittleEndian.AppendUint32(key, uint32(i))
		}
		n, ok := ids[string(key)]
		if !ok {
			n = uint16(len(states))
			ids[string(key)] = n
			states = append(states, s)
		}
		return n
	}
	first := closure(nil)
	if first.seen != 0 {
		return errors.New("a hint matches nothing at all")
	}
	id(first)
	byClass := make([]byte, g.Classes)
	for c := range 256 {
		if c < 'A' || c > 'Z' {
			byClass[g.Class[c]] = byte(c)
		}
	}
	for i := 0; i != len(states); i++ { // which grow
		if (len(states)+1)*(g.Classes+2) > MaxBytes {
			return fmt.Errorf("the gate of %d hints is too big: its rows are counted in sixteen bits", len(starts))
		}
		for _, c := range byClass {
			var to []int
			for _, at := range states[i].at {
				if in := b.insts[at]; in.lo <= c && c <= in.hi {
					to = append(to, in.out)
				}
			}
			g.Next = append(g.Next, id(closure(to)))
		}
	}
	for _, s := range states {
		g.Seen = append(g.Seen, s.seen)
	}
	return nil
}

// Look returns the hints that are in a text, by their bits.
func (g *Gate) Look(text []byte) uint16 {
	var s, seen uint16
	for _, c := range text {
		s = g.Next[int(s)*g.Classes+int(g.Class[c])]
		seen |= g.Seen[s]
	}
	return seen
}

// Lets proves that every match of a machine has one of some hints in it, or returns a match that has not: it walks through the machine's
// forward table and the gate's together.
func (g *Gate) Lets(m *Machine, hints uint16) (without string, ok bool) {
	type pair struct{ state, gate uint16 }
	type step struct {
		from pair
		by   byte
	}
	t := &m.Forward
	came := make(map[pair]step)
	text := func(p pair) string {
		var b strings.Builder
		for s, more := came[p]; more && s.from != p; s, more = came[p] {
			b.WriteByte(s.by)
			p = s.from
		}
		backward := []byte(b.String())
		slices.Reverse(backward)
		return string(backward)
	}
	var queue []pair
	for _, s := range t.Start {
		p := pair{s, 0}
		came[p] = step{from: p}
		queue = append(queue, p)
	}
	for len(queue) > 0 {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if t.Flags[p.state]&FlagAtEnd != 0 {
			return text(p), false
		}
		for c := range 256 {
			to := t.Next[int(p.state)*t.Classes+int(m.Class[c])]
			if t.Flags[to]&FlagMatch != 0 { // it ended before this byte
				return text(p), false
			}
			next := pair{to, g.Next[int(p.gate)*g.Classes+int(g.Class[c])]}
			if _, known := came[next]; known || t.Flags[to]&FlagDead != 0 || g.Seen[next.gate]&hints != 0 {
				continue
			}
			came[next] = step{p, byte(c)}
			queue = append(queue, next)
		}
	}
	return "", true
}

// A GateHeader is the gate of an Image: struct kh_gate of bpf/types.h says what each number means.
type GateHeader struct{ Classes, Next, Flags uint32 }

// lay appends a gate to words.
func (g *Gate) lay(words []uint16) (GateHeader, []uint16) {
	if g == nil {
		g = &Gate{Classes: 1, Next: []uint16{0}, Seen: []uint16{0}} // sees nothing
	}
	stride := (g.Classes + 2) &^ 1
	h := GateHeader{Classes: uint32(len(words)), Next: uint32(len(words)) + 256, Flags: uint32(stride) - 1}
	for _, class := range g.Class {
		words = append(words, uint16(class))
	}
	for state, seen := range g.Seen {
		begin := len(words)
		for _, to := range g.Next[state*g.Classes : (state+1)*g.Classes] {
			words = append(words, uint16(int(to)*stride/2))
		}
		words = append(words, make([]uint16, stride-g.Classes)...)
		words[begin+stride-1] = seen
	}
	return h, words
}

// validate looks at the gate of an image, which may take the words up to end.
func (h *GateHeader) validate(words []uint16, end uint32) error {
	stride := h.Flags + 1
	switch {
	case h.Flags < 1 || h.Flags > 257 || stride%2 != 0:
		return fmt.Errorf("rows of %d words", stride)
	case h.Classes != 0 || h.Next != 256 || end <= h.Next || end > uint32(len(words)):
		return errors.New("its tables are not where they belong")
	}
	for _, class := range words[:256] {
		if uint32(class) >= h.Flags {
			return fmt.Errorf("a byte has class %d of %d", class, h.Flags)
		}
	}
	return walk(words[h.Next:end], stride, 2, func(uint16) bool { return true }, 0)
}

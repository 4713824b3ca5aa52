// SPDX-License-Identifier: Apache-2.0

// Package dfa turns regular expressions into tables that a bounded loop can run: over each byte one look at the next state.
// The eBPF program runs them over a captured value in order to overwrite what matches, so the tables are all that it needs to know.
//
// A [Machine] finds what Go's regexp finds with Longest: leftmost-longest matches that do not overlap, without the empty ones, since there is
// nothing in these to overwrite. It takes two passes. The backward one marks each place where a match begins; the forward one
// runs from a mark as far as it may, and goes on behind the longest match.
package dfa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
)

// Limits on what a machine may become. Reaching one is an error of [Compile], never a machine that finds less.
const (
	MaxStates = 4096    // of each table, before states that do the same are merged
	MaxBytes  = 1 << 17 // so that an offset in it fits in 16 bits

	// maxCounting is how many states the backward table may have in order to mark no place in vain.
	maxCounting = 128

	// maxWork bounds the steps that making a table may take: about a quarter of a second.
	maxWork = 1 << 24
)

// A kind is what assertions want to know of the character beside a place.
type kind uint8

const (
	kindEdge    kind = iota // none: the text begins or ends
	kindNewline             // \n
	kindWord                // ASCII letters, digits and the underscore
	kindOther
	kinds
)

func kindOf(b byte) kind {
	switch {
	case b == '\n':
		return kindNewline
	case '0' <= b && b <= '9', 'A' <= b && b <= 'Z', 'a' <= b && b <= 'z', b == '_':
		return kindWord
	}
	return kindOther
}

// holds are the assertions that hold between a character before and one after.
func holds(before, after kind) syntax.EmptyOp {
	var e syntax.EmptyOp
	if before == kindEdge {
		e |= syntax.EmptyBeginText | syntax.EmptyBeginLine
	}
	if after == kindEdge {
		e |= syntax.EmptyEndText | syntax.EmptyEndLine
	}
	if before == kindNewline {
		e |= syntax.EmptyBeginLine
	}
	if after == kindNewline {
		e |= syntax.EmptyEndLine
	}
	if (before == kindWord) != (after == kindWord) {
		return e | syntax.EmptyWordBoundary
	}
	return e | syntax.EmptyNoWordBoundary
}

// What a state says of the place before the byte that led to it, and of the end if nothing follows.
const (
	FlagMatch uint8 = 1 << iota // a match ends (forward) or begins (backward) before the byte that was read last
	FlagAtEnd                   // if the text ends here, a match ends (begins) here
	FlagDead                    // nothing that follows matches
)

// A Table is a deterministic automaton: Next[state*Classes+class] is the state after a byte of that class.
type Table struct {
	Classes int
	Next    []uint16
	Flags   []uint8
	// Start is where to begin, by the kind of the byte before (behind) the place: edge, newline, word, other.
	Start [kinds]uint16
	// Cut is where the backward pass begins in a text of which more follows than is known: whatever may be the beginning of a match is one.
	Cut uint16
}

// A Machine finds matches of one pattern. It is immutable.
type Machine struct {
	// Class of each byte; bytes of one class are alike to both tables.
	Class             [256]uint8
	Forward, Backward Table
	Check             Check

	// Hints are those of the gate of which every match has one; 0: the machine runs over every text.
	Hints uint16
	Gate  *Gate
}

// A Check is what a match has to pass beside its pattern. Of the matches that begin at one place the longest one that passes counts.
type Check uint32

// The checks.
const (
	NoCheck Check = iota
	Luhn          // ISO/IEC 7812-1, annex B, over its digits: payment cards
	Mod97         // ISO 7064 as ISO 13616-1 uses it, over its letters and digits: IBAN
)

// Apart says what does not follow a match, as a look-ahead would, which Go's syntax has not. The end of the text may follow.
type Apart uint8

// The kinds of Apart.
const (
	FromNothing Apart = iota
	FromDigits        // no ASCII digit follows: a number ends where it ends
	FromAlnum         // nor an ASCII letter
)

func (a Apart) from(b byte) bool {
	digit, lower := '0' <= b && b <= '9', b|0x20
	return a != FromNothing && digit || a == FromAlnum && 'a' <= lower && lower <= 'z'
}

// Compile turns a pattern in Go's syntax (https://pkg.go.dev/regexp/syntax) into a machine. The errors tell the pattern's author what to change.
func Compile(pattern string, check Check) (*Machine, error) {
	return CompileApart(pattern, FromNothing, check)
}

// CompileApart is Compile for matches that stand apart from what follows them.
func CompileApart(pattern string, apart Apart, check Check) (*Machine, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	forward, begin, err := build(re.Simplify(), false)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	m := &Machine{Check: check}
	forward.apart = apart
	classes := classify(&m.Class, forward)
	if m.Forward, err = determinize(forward, begin, &m.Class, classes, false, MaxStates); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if m.Backward, err = marker(re, &m.Class, classes); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return m, nil
}

// classify gives bytes that no instruction tells apart the same class, and returns how many classes there are.
func classify(class *[256]uint8, b *builder) int {
	var edge [257]bool // a class begins at this byte
	for _, i := range b.insts {
		if i.op == opBytes && i.lo <= i.hi {
			edge[i.lo], edge[int(i.hi)+1] = true, true
		}
	}
	for c := 1; c < 256; c++ {
		edge[c] = edge[c] || b.apart.from(byte(c-1)) != b.apart.from(byte(c))
	}
	type like struct {
		segment int
		kind    kind
	}
	var segments []int
	n := 0
	for c := range 256 {
		if edge[c] {
			n++
		}
		segments = append(segments, n)
	}
	ids := make(map[like]uint8)
	for c := range 256 {
		l := like{segment: segments[c]}
		if b.asserts != 0 {
			l.kind = kindOf(byte(c))
		}
		id, ok := ids[l]
		if !ok {
			id = uint8(len(ids))
			ids[l] = id
		}
		class[c] = id
	}
	return len(ids)
}

// A state of the deterministic automaton: where the nondeterministic one may be, before assertions are looked at, and what
// was before.
type state struct {
	at    []int
	kind  kind
	match bool
}

func (s state) key() string {
	k := make([]byte, 0, 2+4*len(s.at))
	k = append(k, byte(s.kind), 0)
	if s.match {
		k[1] = 1
	}
	for _, i := range s.at {
		k = binary.LittleEndian.AppendUint32(k, uint32(i))
	}
	return string(k)
}

type determinizer struct {
	*builder
	start    int
	search   bool // a match may begin anywhere: the backward table
	most     int  // states
	states   []state
	ids      map[string]uint16
	visited  []int // by instruction: the walk that visited it last
	walk     int
	work     int
	overflow bool
}

func determinize(b *builder, start int, class *[256]uint8, classes int, search bool, most int) (Table, error) {
	d := &determinizer{builder: b, start: start, search: search, most: most, ids: make(map[string]uint16), visited: make([]int, len(b.insts))}
	t := Table{Classes: classes}
	for k := range kinds {
		s := state{kind: k}
		if !search {
			s.at = []int{start}
		}
		if b.asserts == 0 {
			s.kind = 0
		}
		t.Start[k] = d.id(s)
	}
	if search {
		anywhere := make([]int, len(b.insts))
		for i := range anywhere {
			anywhere[i] = i
		}
		t.Cut = d.id(state{at: anywhere})
	}
	byClass := make([]byte, classes)
	for c := range 256 {
		byClass[class[c]] = byte(c)
	}
	for i := 0; i != len(d.states); i++ { // which grow
		closures := make([]*closure, kinds)
		for _, c := range byClass {
			k := kindOf(c)
			if b.asserts == 0 {
				k = kindOther
			}
			if closures[k] == nil {
				closures[k] = d.closure(d.states[i], k)
			}
			t.Next = append(t.Next, d.id(d.step(closures[k], c)))
		}
		if d.overflow || d.work > maxWork {
			return Table{}, fmt.Errorf("it needs more than %d states: make it shorter, or repeat less", most)
		}
	}
	for _, s := range d.states {
		var flags uint8
		if s.match {
			flags |= FlagMatch
		}
		if d.closure(s, kindEdge).match {
			flags |= FlagAtEnd
		}
		if len(s.at) == 0 && !search {
			flags |= FlagDead
		}
		t.Flags = append(t.Flags, flags)
	}
	t = t.minimize()
	if n := t.bytes(); n > MaxBytes {
		return Table{}, fmt.Errorf("its table has %d bytes; the most is %d: make it shorter, or repeat less", n, MaxBytes)
	}
	return t, nil
}

func (d *determinizer) id(s state) uint16 {
	key := s.key()
	id, ok := d.ids[key]
	if !ok {
		if len(d.states) >= d.most {
			d.overflow = true
			return 0
		}
		id = uint16(len(d.states))
		d.ids[key] = id
		d.states = append(d.states, s)
	}
	return id
}

// A closure is where the automaton may be once everything that consumes nothing is done, and whether that is a match of at least one byte.
type closure struct {
	at    []int
	match bool
}

// closure is that of a state when a character of kind next is read next.
func (d *determinizer) closure(s state, next kind) *closure {
	before, after := s.kind, next
	if d.backward {
		before, after = after, before
	}
	assert := holds(before, after)
	d.walk++
	c := new(closure)
	for _, i := range s.at {
		c.match = d.follow(i, assert, &c.at) || c.match
	}
	if d.search {
		d.follow(d.start, assert, &c.at) // an empty match does not count
	}
	return c
}

func (d *determinizer) follow(i int, assert syntax.EmptyOp, at *[]int) (match bool) {
	stack := []int{i}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if d.visited[i] == d.walk {
			continue
		}
		d.visited[i] = d.walk
		d.work++
		switch in := d.insts[i]; in.op {
		case opMatch:
			match = true
		case opSplit:
			stack = append(stack, in.out, in.alt)
		case opEmpty:
			if in.assert&^assert == 0 {
				stack = append(stack, in.out)
			}
		case opBytes:
			*at = append(*at, i)
		}
	}
	return match
}

// step is the state after one more byte.
func (d *determinizer) step(from *closure, c byte) state {
	d.work += len(from.at)
	next := state{match: from.match && !d.apart.from(c)}
	for _, i := range from.at {
		if in := d.insts[i]; in.lo <= c && c <= in.hi {
			next.at = append(next.at, in.out)
		}
	}
	slices.Sort(next.at)
	next.at = slices.Compact(next.at)
	if d.asserts != 0 && (len(next.at) > 0 || d.search) { // else it is dead, whatever was before
		next.kind = kindOf(c)
	}
	return next
}

// bytes are what a table takes in an image: a word for each entry, and one more in each row.
func (t *Table) bytes() int { return 2 * (len(t.Next) + len(t.Flags)) }

// minimize merges states that no text tells apart (Moore's algorithm).
func (t Table) minimize() Table {
	group := make([]uint16, len(t.Flags))
	count := 0
	assign := func(key func(s int) string) int {
		ids := make(map[string]uint16)
		next := make([]uint16, len(group))
		for s := range group {
			k := key(s)
			id, ok := ids[k]
			if !ok {
				id = uint16(len(ids))
				ids[k] = id
			}
			next[s] = id
		}
		group = next
		return len(ids)
	}
	for n := assign(func(s int) string { return string(t.Flags[s : s+1]) }); n != count; {
		count = n
		n = assign(func(s int) string {
			k := binary.LittleEndian.AppendUint16(nil, group[s])
			for _, to := range t.Next[s*t.Classes : (s+1)*t.Classes] {
				k = binary.LittleEndian.AppendUint16(k, group[to])
			}
			return string(k)
		})
	}
	out := Table{Classes: t.Classes, Next: make([]uint16, count*t.Classes), Flags: make([]uint8, count)}
	for s, g := range group {
		out.Flags[g] = t.Flags[s]
		for c := range t.Classes {
			out.Next[int(g)*t.Classes+c] = group[t.Next[s*t.Classes+c]]
		}
	}
	for k, s := range t.Start {
		out.Start[k] = group[s]
	}
	out.Cut = group[t.Cut]
	return out
}

// Validate proves what a loop that runs the tables relies on: every state has a next one for every class, and there is one to begin with.
func (m *Machine) Validate() error {
	for _, t := range []*Table{&m.Forward, &m.Backward} {
		switch n := len(t.Flags); {
		case n == 0 || n > MaxStates:
			return fmt.Errorf("a table has %d states; want 1 to %d", n, MaxStates)
		case t.Classes < 1 || t.Classes > 256 || len(t.Next) != n*t.Classes:
			return fmt.Errorf("a table of %d states and %d classes has %d entries", n, t.Classes, len(t.Next))
		case t.bytes() > MaxBytes:
			return fmt.Errorf("a table has more than %d bytes", MaxBytes)
		}
		for _, s := range slices.Concat(t.Next, t.Start[:], []uint16{t.Cut}) {
			if int(s) >= len(t.Flags) {
				return fmt.Errorf("a table leads to state %d of %d", s, len(t.Flags))
			}
		}
		for _, c := range m.Class {
			if int(c) >= t.Classes {
				return fmt.Errorf("a byte has class %d of %d", c, t.Classes)
			}
		}
	}
	if m.Forward.Classes != m.Backward.Classes {
		return errors.New("the two tables differ in their classes")
	}
	if m.Check > Mod97 {
		return fmt.Errorf("there is no check %d", m.Check)
	}
	return nil
}

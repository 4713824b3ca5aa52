// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// invalid stands for a byte that is not part of valid UTF-8, which Go's regexp reads as one U+FFFD: no valid text contains this byte.
const invalid = 0xFF

// maxInsts bounds the nondeterministic automaton that a pattern becomes: x{1000}{1000} is refused before it is built.
const maxInsts = 1 << 14

type op uint8

const (
	opBytes op = iota // consume a byte in [lo, hi], go on at out
	opSplit           // go on at out and at alt
	opEmpty           // go on at out if the assertions hold here
	opMatch
)

// An inst is one instruction of the nondeterministic automaton.
type inst struct {
	op       op
	lo, hi   byte
	out, alt int
	assert   syntax.EmptyOp
}

// A builder makes the automaton from its end: each method returns where to begin in order to match something and then go on at next.
type builder struct {
	insts    []inst
	backward bool
	asserts  syntax.EmptyOp // every assertion that was met
	apart    Apart          // of what a match ends before
	err      error
}

// build makes the automaton that matches re, read from its end if backward, and where it begins.
func build(re *syntax.Regexp, backward bool) (*builder, int, error) {
	b := &builder{backward: backward}
	start := b.node(re, b.add(inst{op: opMatch}))
	return b, start, b.err
}

func (b *builder) add(i inst) int {
	if len(b.insts) >= maxInsts {
		b.err = fmt.Errorf("it needs more than %d steps: repeat less", maxInsts)
		return 0
	}
	b.insts = append(b.insts, i)
	return len(b.insts) - 1
}

func (b *builder) node(re *syntax.Regexp, next int) int {
	if b.err != nil {
		return 0
	}
	switch re.Op {
	case syntax.OpNoMatch:
		return b.bytes(1, 0, next)
	case syntax.OpEmptyMatch:
		return next
	case syntax.OpLiteral:
		return b.literal(re, next)
	case syntax.OpCharClass:
		return b.class(re.Rune, next)
	case syntax.OpAnyCharNotNL:
		return b.class([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune}, next)
	case syntax.OpAnyChar:
		return b.class([]rune{0, unicode.MaxRune}, next)
	case syntax.OpBeginLine:
		return b.assertion(syntax.EmptyBeginLine, next)
	case syntax.OpEndLine:
		return b.assertion(syntax.EmptyEndLine, next)
	case syntax.OpBeginText:
		return b.assertion(syntax.EmptyBeginText, next)
	case syntax.OpEndText:
		return b.assertion(syntax.EmptyEndText, next)
	case syntax.OpWordBoundary:
		return b.assertion(syntax.EmptyWordBoundary, next)
	case syntax.OpNoWordBoundary:
		return b.assertion(syntax.EmptyNoWordBoundary, next)
	case syntax.OpCapture:
		return b.node(re.Sub[0], next)
	case syntax.OpStar:
		loop := b.add(inst{op: opSplit, alt: next})
		begin := b.node(re.Sub[0], loop)
		b.insts[loop].out = begin
		return loop
	case syntax.OpPlus:
		loop := b.add(inst{op: opSplit, alt: next})
		begin := b.node(re.Sub[0], loop)
		b.insts[loop].out = begin
		return begin
	case syntax.OpQuest:
		return b.add(inst{op: opSplit, out: b.node(re.Sub[0], next), alt: next})
	case syntax.OpConcat:
		parts := slices.Clone(re.Sub)
		if !b.backward {
			slices.Reverse(parts)
		}
		for _, sub := range parts {
			next = b.node(sub, next)
		}
		return next
	case syntax.OpAlternate:
		begin := b.node(re.Sub[0], next)
		for _, sub := range re.Sub[1:] {
			begin = b.add(inst{op: opSplit, out: begin, alt: b.node(sub, next)})
		}
		return begin
	}
	b.err = fmt.Errorf("%s is not supported", re.Op)
	return 0
}

func (b *builder) assertion(a syntax.EmptyOp, next int) int {
	b.asserts |= a
	return b.add(inst{op: opEmpty, assert: a, out: next})
}

func (b *builder) bytes(lo, hi byte, next int) int {
	return b.add(inst{op: opBytes, lo: lo, hi: hi, out: next})
}

func (b *builder) literal(re *syntax.Regexp, next int) int {
	runes := slices.Clone(re.Rune)
	if !b.backward {
		slices.Reverse(runes)
	}
	for _, r := range runes {
		class := []rune{r, r}
		if re.Flags&syntax.FoldCase != 0 {
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				class = append(class, f, f)
			}
		}
		next = b.class(class, next)
	}
	return next
}

// class matches one character of these ranges, given as pairs.
func (b *builder) class(ranges []rune, next int) int {
	begin := -1
	or := func(i int) {
		if begin < 0 {
			begin = i
			return
		}
		begin = b.add(inst{op: opSplit, out: begin, alt: i})
	}
	for i := 0; i+1 < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		if lo <= utf8.RuneError && utf8.RuneError <= hi {
			or(b.bytes(invalid, invalid, next))
		}
		for _, s := range sequences(lo, hi) {
			if b.backward {
				slices.Reverse(s)
			}
			at := next
			for _, r := range slices.Backward(s) {
				at = b.bytes(r.lo, r.hi, at)
			}
			or(at)
		}
	}
	if begin < 0 {
		return b.bytes(1, 0, next)
	}
	return begin
}

type byteRange struct{ lo, hi byte }

// lastOf is the last character that takes so many bytes in UTF-8 (RFC 3629, section 3).
var lastOf = [...]rune{1: 0x7F, 2: 0x7FF, 3: 0xFFFF, 4: unicode.MaxRune}

// sequences are the sequences of byte ranges that together are the UTF-8 of the characters lo to hi. Surrogates have none.
func sequences(lo, hi rune) [][]byteRange {
	if lo > hi {
		return nil
	}
	const firstSurrogate, lastSurrogate = 0xD800, 0xDFFF
	if lo <= lastSurrogate && hi >= firstSurrogate {
		return append(sequences(lo, firstSurrogate-1), sequences(lastSurrogate+1, hi)...)
	}
	for n := 1; n < 4; n++ {
		if last := lastOf[n]; lo <= last && last < hi {
			return append(sequences(lo, last), sequences(last+1, hi)...)
		}
	}
	// Both have the same length now. Split until what follows a byte that varies is free.
	var first, last [utf8.UTFMax]byte
	n := utf8.EncodeRune(first[:], lo)
	utf8.EncodeRune(last[:], hi)
	for i := n - 1; i > 0; i-- {
		rest := rune(1)<<(6*i) - 1
		if lo&^rest == hi&^rest {
			continue
		}
		if lo&rest != 0 {
			return append(sequences(lo, lo|rest), sequences(lo|rest+1, hi)...)
		}
		if hi&rest != rest {
			return append(sequences(lo, hi&^rest-1), sequences(hi&^rest, hi)...)
		}
	}
	s := make([]byteRange, n)
	for i := range s {
		s[i] = byteRange{first[i], last[i]}
	}
	return [][]byteRange{s}
}

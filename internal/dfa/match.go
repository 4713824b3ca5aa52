// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"bytes"
	"unicode/utf8"
)

// Overwritten is what takes the place of each byte of a match.
const Overwritten = '*'

// MaxSteps is how many steps the forward pass takes over one value. If they are not enough all of the value is overwritten: some patterns need
// as many as the square of its length.
const MaxSteps = 1 << 16

// Overwrite returns a copy of text in which everything that a machine finds is overwritten. With cut the text is the beginning of a longer one, and what
// may be the beginning of a match is overwritten up to its end.
//
// It is the specification of what the eBPF program does with a value, step by step, so that tests can compare the two.
func Overwrite(text []byte, cut bool, machines ...*Machine) []byte {
	out := bytes.Clone(text)
	for _, m := range machines {
		for _, found := range m.Matches(text, cut) {
			for i := found[0]; i < found[1]; i++ {
				out[i] = Overwritten
			}
		}
	}
	return out
}

// Normalize returns text as the tables read it: each byte that is not part of valid UTF-8 becomes 0xFF. Without such bytes it is text itself.
func Normalize(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	out := bytes.Clone(text)
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			out[i] = invalid
		}
		i += n
	}
	return out
}

// Matches are the places in text that a machine overwrites, as [begin, end) pairs. Without a check and a cut they are what regexp.FindAllIndex finds
// after Longest, less the empty ones.
func (m *Machine) Matches(text []byte, cut bool) [][2]int {
	if len(text) == 0 {
		return nil
	}
	text = Normalize(text)
	begins, some := m.begins(text, cut)
	if !some {
		return nil
	}
	p := pass{Machine: m, text: text, cut: cut}
	var found [][2]int
	for at := 0; at < len(text); {
		if p.steps++; p.steps > MaxSteps {
			return [][2]int{{0, len(text)}}
		}
		if !begins[at] {
			at++
			continue
		}
		p.steps-- // its first byte counts below
		end := p.longest(at)
		if p.steps > MaxSteps {
			return [][2]int{{0, len(text)}}
		}
		if end > at {
			found = append(found, [2]int{at, end})
			at = end
		} else {
			at++
		}
	}
	if p.steps++; p.steps > MaxSteps { // the one that finds the end
		return [][2]int{{0, len(text)}}
	}
	return found
}

// begins marks where a match of at least one byte begins.
func (m *Machine) begins(text []byte, cut bool) (marks []bool, some bool) {
	t := &m.Backward
	marks = make([]bool, len(text)+1)
	s := t.Start[kindEdge]
	if cut {
		s = t.Cut
	}
	for i := len(text); i > 0; i-- {
		s = t.Next[int(s)*t.Classes+int(m.Class[text[i-1]])]
		marks[i] = t.Flags[s]&FlagMatch != 0
		some = some || marks[i]
	}
	marks[0] = t.Flags[s]&FlagAtEnd != 0
	return marks, some || marks[0]
}

// A pass is the forward one.
type pass struct {
	*Machine
	text  []byte
	cut   bool
	steps int
}

// longest is the end of the longest match that begins at i; i if there is none.
func (p *pass) longest(i int) int {
	t := &p.Forward
	before := kindEdge
	if i > 0 {
		before = kindOf(p.text[i-1])
	}
	s, end := t.Start[before], i
	sums := sums{check: p.Check}
	for j := i; j < len(p.text); j++ {
		if p.steps++; p.steps > MaxSteps {
			return end
		}
		s = t.Next[int(s)*t.Classes+int(p.Class[p.text[j]])]
		if t.Flags[s]&FlagMatch != 0 && sums.pass() {
			end = j
		}
		if t.Flags[s]&FlagDead != 0 {
			return end
		}
		sums.add(p.text[j])
	}
	p.steps++
	if p.cut || t.Flags[s]&FlagAtEnd != 0 && sums.pass() {
		end = len(p.text)
	}
	return end
}

// Whole says whether a machine matches all of text, as regexp does with \A in front of its pattern and \z behind it, and whether that
// passes its check.
func (m *Machine) Whole(text []byte) bool {
	t := &m.Forward
	s := t.Start[kindEdge]
	sums := sums{check: m.Check}
	for _, b := range Normalize(text) {
		s = t.Next[int(s)*t.Classes+int(m.Class[b])]
		if t.Flags[s]&FlagDead != 0 {
			return false
		}
		sums.add(b)
	}
	return t.Flags[s]&FlagAtEnd != 0 && sums.pass()
}

// sums are what the checks need of the characters of a match, in order.
type sums struct {
	check      Check
	n          int
	odd, even  int // Luhn, if every character at an odd (even) index counts double
	head, rest int // of an IBAN: the first four characters as a number, and the others modulo 97
}

func (s *sums) add(b byte) {
	var v int
	switch lower := b | 0x20; {
	case '0' <= b && b <= '9':
		v = int(b - '0')
	case s.check == Mod97 && 'a' <= lower && lower <= 'z':
		v = int(lower-'a') + 10
	default:
		return
	}
	double := 2 * v
	if double > 9 {
		double -= 9
	}
	tens := 10
	if v >= 10 {
		tens = 100
	}
	if s.n%2 == 1 {
		s.odd, s.even = s.odd+double, s.even+v
	} else {
		s.odd, s.even = s.odd+v, s.even+double
	}
	if s.n < 4 {
		s.head = s.head*tens + v
	} else {
		s.rest = (s.rest*tens + v) % 97
	}
	s.n++
}

func (s *sums) pass() bool {
	switch s.check {
	case Luhn:
		if s.n%2 == 1 {
			return s.odd%10 == 0
		}
		return s.even%10 == 0
	case Mod97:
		return (s.rest*1_000_000+s.head)%97 == 1
	}
	return true
}

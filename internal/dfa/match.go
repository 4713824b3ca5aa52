// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"bytes"
	"unicode/utf8"
)

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

// Matches are the places that would be overwritten in text, as [begin, end) pairs: what regexp.FindAllIndex finds after Longest,
// without empty matches. It is the specification of the kernel's loop, and does the same steps.
func (m *Machine) Matches(text []byte) [][2]int {
	text = Normalize(text)
	begins := m.begins(text)
	var found [][2]int
	for i := 0; i < len(text); i++ {
		if !begins[i] {
			continue
		}
		if end := m.longest(text, i); end > i {
			found = append(found, [2]int{i, end})
			i = end - 1
		}
	}
	return found
}

// begins marks where a match of at least one byte begins.
func (m *Machine) begins(text []byte) []bool {
	t := &m.Backward
	marks := make([]bool, len(text)+1)
	s := t.Start[kindEdge]
	for i := len(text); i > 0; i-- {
		s = t.Next[int(s)*t.Classes+int(m.Class[text[i-1]])]
		marks[i] = t.Flags[s]&FlagMatch != 0
	}
	marks[0] = t.Flags[s]&FlagAtEnd != 0
	return marks
}

// longest is the end of the longest match that begins at i; i if there is none.
func (m *Machine) longest(text []byte, i int) int {
	t := &m.Forward
	before := kindEdge
	if i > 0 {
		before = kindOf(text[i-1])
	}
	s, end := t.Start[before], i
	for j := i; j < len(text); j++ {
		s = t.Next[int(s)*t.Classes+int(m.Class[text[j]])]
		if t.Flags[s]&FlagMatch != 0 {
			end = j
		}
		if t.Flags[s]&FlagDead != 0 {
			return end
		}
	}
	if t.Flags[s]&FlagAtEnd != 0 {
		end = len(text)
	}
	return end
}

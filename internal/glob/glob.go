// SPDX-License-Identifier: Apache-2.0

// Package glob matches names against patterns in which `*` stands for any run of characters, separators included, and
// `?` for exactly one. Nothing else is special, since names of functions are full of brackets, parentheses and slashes,
// so every string is a pattern and matching cannot fail.
package glob

import "unicode/utf8"

// Match says whether the whole of s is what pattern describes. It takes time proportional to the product of their
// lengths at worst, whatever the pattern.
func Match(pattern, s string) bool {
	var p, i int          // positions in pattern and s
	star, resume := -1, 0 // the last `*` met, and where in s its run ends at present
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, resume = p, i
			p++
			continue
		}
		if p < len(pattern) {
			_, width := utf8.DecodeRuneInString(s[i:])
			if pattern[p] == '?' {
				p++
				i += width
				continue
			}
			if pattern[p] == s[i] {
				p++
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, width := utf8.DecodeRuneInString(s[resume:])
		resume += width
		p, i = star+1, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// MatchAny says whether one of the patterns matches.
func MatchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if Match(p, s) {
			return true
		}
	}
	return false
}

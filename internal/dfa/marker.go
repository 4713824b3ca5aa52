// SPDX-License-Identifier: Apache-2.0

package dfa

import "regexp/syntax"

// marker makes the backward table. It may mark more places than those where a match begins, since the forward pass looks at each: where counting
// how often something repeats would need many states, it looks for what every match begins with, and where that needs many it does not count.
func marker(re *syntax.Regexp, class *[256]uint8, classes int) (Table, error) {
	backward := func(re *syntax.Regexp, most int) (Table, error) {
		b, end, err := build(re.Simplify(), true)
		if err != nil {
			return Table{}, err
		}
		return determinize(b, end, class, classes, true, most)
	}
	t, err := backward(re, maxCounting)
	if err == nil {
		return t, nil
	}
	for _, n := range []int{maxInsts, 24, 16, 12, 8, 6, 4} {
		short := shorten(re, n)
		if short == nil {
			break
		}
		if t, err := backward(short, maxCounting); err == nil {
			return t, nil
		}
	}
	loosen(re)
	return backward(re, MaxStates)
}

// shorten returns a pattern that matches a beginning of whatever re matches: of at least one character, and where it has a choice of some n and
// no more. It is nil if it knows of none. re stays as it is.
func shorten(re *syntax.Regexp, n int) *syntax.Regexp {
	least := atLeast(re)
	if least == 0 {
		return nil
	}
	short := *re
	switch re.Op {
	case syntax.OpLiteral:
		short.Rune = re.Rune[:min(n, len(re.Rune))]
	case syntax.OpCapture, syntax.OpPlus:
		return shorten(re.Sub[0], n)
	case syntax.OpRepeat:
		each := least / re.Min
		short.Min = min(re.Min, (n+each-1)/each)
		short.Max = short.Min
	case syntax.OpAlternate:
		short.Sub = nil
		for _, sub := range re.Sub {
			short.Sub = append(short.Sub, shorten(sub, n))
		}
	case syntax.OpConcat:
		short.Sub = nil
		for left := min(n, least); left > 0; {
			sub := re.Sub[len(short.Sub)]
			k := atLeast(sub)
			if k >= left {
				sub = shorten(sub, left)
			}
			short.Sub = append(short.Sub, sub)
			left -= k
		}
	}
	return &short
}

// atLeast is how many characters a match of re has at least.
func atLeast(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return atLeast(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min * atLeast(re.Sub[0])
	case syntax.OpAlternate:
		least := maxInsts
		for _, sub := range re.Sub {
			least = min(least, atLeast(sub))
		}
		return least
	case syntax.OpConcat:
		sum := 0
		for _, sub := range re.Sub {
			sum += atLeast(sub)
		}
		return sum
	}
	return 0
}

// loosen makes of each x{n,m} an x+ or x*, in place.
func loosen(re *syntax.Regexp) {
	if re.Op == syntax.OpRepeat {
		re.Op = syntax.OpPlus
		if re.Min == 0 {
			re.Op = syntax.OpStar
		}
	}
	for _, sub := range re.Sub {
		loosen(sub)
	}
}

// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"unicode"
)

// atoms are what patterns are made of: few letters, so that much matches, and each thing that the syntax has.
var atoms = []string{
	"a", "b", "ab", ".", "[ab]", "[^b]", `\b`, `\B`, "^", "$", `\A`, `\z`, "(?m:^)", "(?m:$)", `\w`, `\W`, "\u00e9", "[\u00e0-\u00ff]", `\n`, "1", `\d`, `\D`, `\s`, "(?i:k)",
	"(?i:straSSe)", "(?s:.)", `\x{fffd}`, "\u20ac", `\pL`, `\p{Greek}`, `[^\x00-\x7f]`, "[[:alpha:]]", "[^[:^digit:]]", "@", `\.`, "-", "_", "", "(?:)", "k", "\u212a", "longliteral", "[a-c1-3_-]",
	`[\x{80}-\x{10ffff}]`, `[^\x{80}-\x{10ffff}]`, "\U0001f511",
}

// pattern makes a random one.
func pattern(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(5) == 0 {
		return atoms[r.IntN(len(atoms))]
	}
	sub := func() string { return pattern(r, depth-1) }
	switch r.IntN(8) {
	case 0, 1, 2:
		return sub() + sub()
	case 3:
		return "(?:" + sub() + "|" + sub() + ")"
	case 4:
		return "(" + sub() + ")" + []string{"*", "+", "?", "*?", "+?", "??"}[r.IntN(6)]
	case 5:
		return "(?:" + sub() + ")" + []string{"{2}", "{1,3}", "{0,2}", "{2,}", "{0}", "{3,7}", "{1,3}?"}[r.IntN(7)]
	case 6:
		return "(?" + []string{"i", "s", "m", "U", "is"}[r.IntN(5)] + ":" + sub() + ")"
	}
	return sub()
}

// sample appends a text that a pattern matches, if no assertion is in the way.
func sample(r *rand.Rand, b *strings.Builder, re *syntax.Regexp) {
	repeat := func(least, most int) {
		if most < 0 {
			most = least + 3
		}
		for range least + r.IntN(most-least+1) {
			sample(r, b, re.Sub[0])
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, c := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 && r.IntN(2) == 0 {
				c = unicode.SimpleFold(c)
			}
			b.WriteRune(c)
		}
	case syntax.OpCharClass:
		if len(re.Rune) > 0 {
			i := 2 * r.IntN(len(re.Rune)/2)
			lo, hi := re.Rune[i], re.Rune[i+1]
			b.WriteRune(lo + rand.N(min(hi-lo, 300)+1))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteString([]string{"a", "x", "\u00e9", "\xff", " "}[r.IntN(5)])
	case syntax.OpCapture:
		sample(r, b, re.Sub[0])
	case syntax.OpStar:
		repeat(0, -1)
	case syntax.OpPlus:
		repeat(1, -1)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		repeat(re.Min, re.Max)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			sample(r, b, sub)
		}
	case syntax.OpAlternate:
		sample(r, b, re.Sub[r.IntN(len(re.Sub))])
	}
}

var noise = []string{
	"a", "b", "ab", "k", "\u212a", " ", "\n", "1", "_", "\u00e9", "\u20ac", "\xe2", "\x82", "\xff", "\xf0\x9f", "\U0001f511", "\ufffd", "@", ".", "-", "\x00", "\xed\xa0\x80", "\xf4\x90\x80\x80", "longlitera", "STRASSE",
}

// value is a random text that has something to do with a pattern, of at most MaxValue bytes and mostly of far fewer.
func value(r *rand.Rand, re *syntax.Regexp) []byte {
	var b strings.Builder
	most := []int{0, 8, 30, 30, 100, 300}[r.IntN(6)]
	if r.IntN(100) == 0 {
		most = MaxValue
	}
	for b.Len() < most {
		switch r.IntN(3) {
		case 0:
			sample(r, &b, re)
		default:
			b.WriteString(noise[r.IntN(len(noise))])
		}
		if r.IntN(12) == 0 {
			break
		}
	}
	text := []byte(b.String())
	return text[:min(len(text), MaxValue)]
}

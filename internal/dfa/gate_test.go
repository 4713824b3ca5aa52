// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

func gate(t *testing.T, hints ...string) *Gate {
	t.Helper()
	g, err := NewGate(hints)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestLook holds a gate against Go's regexp.
func TestLook(t *testing.T) {
	hints := []string{`@`, `key`, `[0-9](?:[ -]?[0-9]){3}`, `a.b|ab{2,}c`, `[^a-z]{4}x`}
	// What is none of the letters is not a capital either.
	hints[3], hints[4] = `a[ -@]b|ab{2,}c`, `[ -@]{4}x`
	g := gate(t, hints...)
	var patterns []*regexp.Regexp
	for _, hint := range hints {
		patterns = append(patterns, regexp.MustCompile(`(?i)`+hint))
	}
	r := rand.New(rand.NewPCG(3, 4))
	counts := make([]int, len(hints))
	const alphabet = "abcxkeyABKEY0123 -@\x00\x80\xff\xc3\xa9"
	for range 50000 {
		text := make([]byte, r.IntN(24))
		for i := range text {
			text[i] = alphabet[r.IntN(len(alphabet))]
		}
		seen := g.Look(text)
		for i, p := range patterns {
			want := p.Match(text)
			if got := seen&(1<<i) != 0; got != want {
				t.Fatalf("%q has the hint %s: %v; want %v", text, hints[i], got, want)
			}
			if want {
				counts[i]++
			}
		}
	}
	for i, n := range counts {
		if n < 100 {
			t.Errorf("the hint %s was in %d texts: too few to show anything", hints[i], n)
		}
	}
}

// TestLets finds a match that has no hint, wherever there is one.
func TestLets(t *testing.T) {
	for _, c := range []struct {
		pattern, hint string
		check         Check
		lets          bool
	}{
		{`\w+@\w+`, `@`, NoCheck, true},
		{`\w+(@|%40)\w+`, `@`, NoCheck, false},
		{`(?i)password=.*`, `passw`, NoCheck, false}, // PAſSWORD matches, too
		{`password=.*`, `passw`, NoCheck, true},
		{`\b\d{4}( ?\d{4}){3}\b`, `[0-9](?: ?[0-9]){15}`, Luhn, true},
		{`\b\d{4}( ?\d{4}){3}\b`, `[0-9](?: ?[0-9]){16}`, Luhn, false},
		{`ab$`, `ab`, NoCheck, true},
		{`ab$|c`, `ab`, NoCheck, false},
		{`ab\b`, `ab `, NoCheck, false}, // what follows a match is not a part of it
		{`a(bc)?`, `a`, NoCheck, true},
		{`a(bc)?`, `abc`, NoCheck, false},
		{`x*`, `x`, NoCheck, false}, // it matches nothing, too, though there is nothing in it to overwrite
		{`x+`, `x`, NoCheck, true},
	} {
		m, err := Compile(c.pattern, c.check)
		if err != nil {
			t.Fatal(err)
		}
		without, lets := gate(t, "unrelated", c.hint).Lets(m, 2)
		if lets != c.lets {
			t.Errorf("every match of %s has %s in it: %v (%q); want %v", c.pattern, c.hint, lets, without, c.lets)
		}
	}
}

func TestBadHints(t *testing.T) {
	for _, hint := range []string{`Ab`, `a*`, `\bab`, `é`, `[^a]`, `(`, `a{3000}`, `(?:a[a-z]{14}|b[a-z]{14})x`} {
		if _, err := NewGate([]string{hint}); err == nil {
			t.Errorf("the hint %s is taken", hint)
		} else {
			t.Log(err)
		}
	}
	if _, err := NewGate(make([]string, MaxHints+1)); err == nil {
		t.Error("too many hints are taken")
	}
}

// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"
)

// want is what Go's regexp finds: the reference.
func want(re *regexp.Regexp, text []byte) [][2]int {
	var found [][2]int
	for _, m := range re.FindAllIndex(text, -1) {
		if m[0] < m[1] {
			found = append(found, [2]int{m[0], m[1]})
		}
	}
	return found
}

// whole finds the texts of which a pattern matches everything.
func whole(pattern string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + pattern + `)\z`) }

func agree(t *testing.T, pattern string, text []byte) {
	t.Helper()
	re, err := regexp.Compile(pattern)
	if err != nil {
		return
	}
	re.Longest()
	m, err := Compile(pattern, NoCheck)
	if err != nil {
		return // limits; TestLimits looks at these
	}
	if err := m.Validate(); err != nil {
		t.Fatalf("%q: %v", pattern, err)
	}
	if got, want := m.Matches(text, false), want(re, text); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q in %q: found %v; regexp finds %v", pattern, text, got, want)
	}
	if got, want := m.Whole(text), whole(pattern).Match(text); got != want {
		t.Errorf("%q is all of %q: %v; regexp says %v", pattern, text, got, want)
	}
}

func TestAgreesWithRegexp(t *testing.T) {
	texts := []string{
		"", "a", "ab", "aab ba", "x@y.de, q@z", "line one\nline two\n", "caf\u00e9 \u212a \u017f", "\xff\xfe", "a\xe2\x82b", "\xe2\x82\xac\xef\xbf\xbd", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"4111 1111 1111 1111", "0000", "aXbXc", strings.Repeat("ab", 40),
	}
	for _, pattern := range []string{
		"a", "a|ab", "a*", "(a*b|a)", "[^a]", ".", "(?s).", `\bx`, `\Ba`, "^a", "a$", "(?m)^l", "(?m)e$", `\w+@\w+(\.\w+)+`, `(?i)k`, "(?i)s+", `\x{20ac}`, `[\x{80}-\x{10ffff}]`, `\d{4}( \d{4}){3}`,
		"(ab){2,5}", "x*$", `\b`, "(?:)", "a{0}", `[^\x00-\x{10ffff}]`, `(a|b)*c|(a|ab)*`, `\A\w`, `\w\z`, `(^|[^0-9])0+($|[^0-9])`, `\x{fffd}`,
	} {
		for _, text := range texts {
			agree(t, pattern, []byte(text))
		}
	}
}

// generate makes a pattern and texts that it has something to do with: few letters, so that much matches.
func generate(r *rand.Rand, depth int) string {
	atoms := []string{"a", "b", "ab", ".", "[ab]", "[^b]", `\b`, `\B`, "^", "$", "(?m:^)", "(?m:$)", `\w`, `\W`, "\u00e9", "[\u00e0-\u00ff]", `\n`, "1", `\d`, "(?i:k)", "(?s:.)", `\x{fffd}`, "\u20ac"}
	if depth == 0 || r.IntN(4) == 0 {
		return atoms[r.IntN(len(atoms))]
	}
	switch r.IntN(6) {
	case 0, 1:
		return generate(r, depth-1) + generate(r, depth-1)
	case 2:
		return "(?:" + generate(r, depth-1) + "|" + generate(r, depth-1) + ")"
	case 3:
		return "(?:" + generate(r, depth-1) + ")" + []string{"*", "+", "?"}[r.IntN(3)]
	case 4:
		return "(?:" + generate(r, depth-1) + ")" + []string{"{2}", "{1,3}", "{0,2}", "{2,}"}[r.IntN(4)]
	}
	return generate(r, depth-1)
}

func text(r *rand.Rand) []byte {
	parts := []string{"a", "b", "ab", "k", "\u212a", " ", "\n", "1", "_", "\u00e9", "\u20ac", "\xe2", "\x82", "\xff", "\xf0\x9f", "\U0001f511", "\ufffd"}
	var b strings.Builder
	for range r.IntN(20) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return []byte(b.String())
}

func TestRandomPatterns(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 3_000 {
		pattern := generate(r, 4)
		re, err := regexp.Compile(pattern)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		re.Longest()
		m, err := Compile(pattern, NoCheck)
		if err != nil {
			continue
		}
		all := whole(pattern)
		for range 10 {
			s := text(r)
			if got, want := m.Whole(s), all.Match(s); got != want {
				t.Fatalf("%q is all of %q: %v; regexp says %v", pattern, s, got, want)
			}
			if got, want := m.Matches(s, false), want(re, s); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%q in %q: found %v; regexp finds %v", pattern, s, got, want)
			}
		}
	}
}

// TestBeginnings gives patterns that count so far that only what matches begin with is looked for.
func TestBeginnings(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, pattern := range []string{
		`\b[0-9](?:[ab]?[0-9]){12,18}\b`, `(?:a[ab]{8,12}|1[1a]{8,12}b)(?:\b|k)`, `(?:[ab]?1){9,}$`, `(?:[ab]{1,9}1?){5,9}k*`, `(?:\b|a)(?:1a?){6,}(?:b|$)*`,
	} {
		re := regexp.MustCompile(pattern)
		re.Longest()
		m, err := Compile(pattern, NoCheck)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for range 3_000 {
			s := make([]byte, r.IntN(60))
			for i := range s {
				s[i] = "111111aab k"[r.IntN(11)]
			}
			all := want(re, s)
			found += len(all)
			if got := m.Matches(s, false); fmt.Sprint(got) != fmt.Sprint(all) {
				t.Fatalf("%q in %q: found %v; regexp finds %v", pattern, s, got, all)
			}
		}
		t.Logf("%s: %d backward states, %d matches", pattern, len(m.Backward.Flags), found)
		if found == 0 {
			t.Errorf("%s: nothing matched", pattern)
		}
	}
}

func TestApart(t *testing.T) {
	for _, c := range []struct {
		apart      Apart
		text, want string
	}{
		{FromNothing, "xab12", "xa**2"},
		{FromDigits, "xab12", "xab12"},
		{FromDigits, "xab1", "xa**"},
		{FromDigits, "b1b1_b1", "****_**"},
		{FromDigits, "b1 b11", "** b11"},
		{FromAlnum, "b1b1_b1x", "b1**_b1x"},
		{FromAlnum, "b1\u00e9", "**\u00e9"},
	} {
		m, err := CompileApart(`b[0-9]`, c.apart, NoCheck)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(Overwrite([]byte(c.text), false, m)); got != c.want {
			t.Errorf("apart %d: %q became %q; want %q", c.apart, c.text, got, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	for pattern, want := range map[string]string{
		`(a`:                       "missing closing",
		`(a)\1`:                    "invalid escape",
		`a(?=b)`:                   "invalid or unsupported Perl syntax",
		`(a|b)*a(a|b){20}`:         "states",
		`[\pL\pN]{500}`:            "steps",
		`(\pL+ ){20}[a-z]{0,100}x`: "",
	} {
		_, err := Compile(pattern, NoCheck)
		switch {
		case err == nil && want != "":
			t.Errorf("%q is taken; want an error with %q", pattern, want)
		case err != nil && (want == "" && !strings.Contains(err.Error(), "steps") && !strings.Contains(err.Error(), "bytes") && !strings.Contains(err.Error(), "states") || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v; want %q", pattern, err, want)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, damage := range map[string]func(*Machine){
		"a state that there is not": func(m *Machine) { m.Forward.Next[0] = uint16(len(m.Forward.Flags)) },
		"a row is missing":          func(m *Machine) { m.Backward.Next = m.Backward.Next[1:] },
		"no states":                 func(m *Machine) { m.Forward = Table{Classes: m.Forward.Classes} },
		"a class that there is not": func(m *Machine) { m.Class['x'] = uint8(m.Forward.Classes) },
		"a start that there is not": func(m *Machine) { m.Backward.Start[kindWord] = 9999 },
		"no classes":                func(m *Machine) { m.Forward.Classes = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Compile(`\w+@\w+`, NoCheck)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Validate(); err != nil {
				t.Fatal(err)
			}
			damage(m)
			if m.Validate() == nil {
				t.Error("it is valid")
			}
		})
	}
}

func FuzzAgreesWithRegexp(f *testing.F) {
	f.Add(`\w+@\w+(\.\w+)+`, []byte("mail x@y.de"))
	f.Add(`(a*b|a)`, []byte("aaaa"))
	f.Add(`[^x]`, []byte("\xe2\x82x"))
	f.Fuzz(func(t *testing.T, pattern string, text []byte) {
		if _, err := syntax.Parse(pattern, syntax.Perl); err != nil || len(pattern) > 100 || len(text) > 1000 {
			return
		}
		agree(t, pattern, text)
	})
}

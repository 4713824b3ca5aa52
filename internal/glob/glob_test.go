// SPDX-License-Identifier: Apache-2.0

package glob

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"**", "a.b/c", true},
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*c", "a.b.c", true},
		{"a*c", "a.b.d", false},
		{"*.Checkout", "main.(*Cart).Checkout", true},
		{"main.(*Cart).Checkout", "main.(*Cart).Checkout", true},
		{"crypto/*", "crypto/tls.(*Conn).Read", true},
		{"crypto/*", "encoding/json.Marshal", false},
		{"?", "é", true},
		{"??", "é", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"[ab]", "a", false},
		{"[ab]", "[ab]", true},
		{"*a*b*c*", "xxaxxbxxc", true},
		{"*a*b*c", "abcabcab", false},
	} {
		if got := Match(c.pattern, c.s); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
	if !MatchAny([]string{"x", "y*"}, "yes") || MatchAny(nil, "yes") {
		t.Error("MatchAny disagrees with Match")
	}
}

// FuzzMatch compares with a regular expression that means the same.
func FuzzMatch(f *testing.F) {
	f.Add("a*?c", "abbc")
	f.Add("*.(*Cart).*", "main.(*Cart).Checkout")
	f.Add(strings.Repeat("*a", 30), strings.Repeat("a", 60))
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(s) || len(pattern) > 100 || len(s) > 1000 {
			t.Skip()
		}
		quoted := regexp.QuoteMeta(pattern)
		quoted = strings.ReplaceAll(strings.ReplaceAll(quoted, `\*`, `.*`), `\?`, `.`)
		re, err := regexp.Compile(`\A(?s:` + quoted + `)\z`)
		if err != nil {
			t.Skip(err)
		}
		want := re.MatchString(s)
		if got := Match(pattern, s); got != want {
			t.Errorf("Match(%q, %q) = %v; the regular expression says %v", pattern, s, got, want)
		}
	})
}

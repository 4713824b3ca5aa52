// SPDX-License-Identifier: Apache-2.0

package table

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünïcode, 漢字": "plain text, ünïcode, 漢字",
		"\x1b[2J\x1b]0;title\x07": `\x1b[2J\x1b]0;title\x07`,
		"a\nb\tc\rd":              `a\nb\tc\rd`,
		"\u009b31m":               `\u009b31m`, // CSI of the second set of controls
		"\u202egnp.exe":           `\u202egnp.exe`,
		"zero\u200bwidth":         `zero\u200bwidth`,
		"\U000e0041":              `\U000e0041`, // an invisible tag character
		"bad\xffbyte":             `bad\xffbyte`,
		"\x7f\x00":                `\x7f\x00`,
		"":                        "",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) is %q; want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b]52;c;aGk=\x07")
	f.Add("\xff\u2028\u0085")
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if !utf8.ValidString(c) {
			t.Errorf("Clean(%q) is no UTF-8", s)
		}
		for _, r := range c {
			if !unicode.IsPrint(r) {
				t.Errorf("Clean(%q) has %q", s, r)
			}
		}
		if again := Clean(c); again != c {
			t.Errorf("Clean(%q) is %q, of which Clean makes %q", s, c, again)
		}
	})
}

// TestNothingGetsThrough prints hostile text in every way there is, with and without colours, and looks for what it would do.
func TestNothingGetsThrough(t *testing.T) {
	const hostile = "\x1b[2Jgone\x1b]0;evil\x07\r\n\u009b1mx\u202e"
	lines := Table([]Column{{Title: hostile, Right: true}, {Title: "b", Max: 5, Cut: true}, {Title: "c"}}, [][]Span{
		{{hostile, Bad}, {hostile, Dim}, Text(hostile)},
	})
	for _, environment := range [][]string{nil, {"CLICOLOR_FORCE=1", "TERM=xterm-256color"}} {
		var out bytes.Buffer
		p := NewPrinter(&out, environment)
		if err := p.Print(lines...); err != nil {
			t.Fatal(err)
		}
		if err := p.Redraw(Line{{hostile, Warn}}, 200); err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("\x1b[31m", "", "\x1b[33m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[m", "", "\x1b[K", "").Replace(out.String())
		for _, bad := range []string{"\x1b", "\x07", "\u009b", "\u202e", "evil\r", "\n\u009b"} {
			if strings.Contains(text, bad) {
				t.Errorf("with %q: %q got through: %q", environment, bad, text)
			}
		}
		if n := strings.Count(text, "\n"); n != len(lines) {
			t.Errorf("with %q: %d lines became %d", environment, len(lines), n)
		}
	}
}

func TestColoursOnlyWhereTheyBelong(t *testing.T) {
	line := Line{{"red", Bad}, {"dim", Dim}}
	for _, c := range []struct {
		environment []string
		want        string
	}{
		{nil, "reddim\n"},
		{[]string{"NO_COLOR=1", "TERM=xterm"}, "reddim\n"},
		{[]string{"CLICOLOR_FORCE=1", "TERM=xterm-256color"}, "\x1b[31mred\x1b[m\x1b[2mdim\x1b[m\n"},
	} {
		var out bytes.Buffer
		if err := NewPrinter(&out, c.environment).Print(line); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("with %q: %q; want %q", c.environment, out.String(), c.want)
		}
	}
}

func TestColumnsAlignByWidth(t *testing.T) {
	lines := Table([]Column{{Title: "NAME"}, {Title: "N", Right: true}, {Title: "NOTE"}}, [][]Span{
		{Text("漢字"), Text("7"), Text("wide")},
		{Text("é"), Text("1234"), Text("narrow")},
		{Text("x")},
	})
	want := "NAME     N  NOTE\n漢字     7  wide\né     1234  narrow\nx\n"
	var got strings.Builder
	for _, l := range lines {
		got.WriteString(l.String() + "\n")
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestColumnsWidenAndCut(t *testing.T) {
	c := NewColumns(Column{Title: "A", Max: 4}, Column{Title: "B", Max: 4, Cut: true}, Column{Title: "C"})
	for _, row := range []struct {
		a, b, want string
	}{
		{"1", "1", "1  1  c"},
		{"123", "123", "123  123  c"},
		{"1", "1", "1    1    c"},               // stays as wide as it became
		{"123456", "123456", "123456  123…  c"}, // A pushes, B is cut
		{"1", "1", "1     1     c"},             // and neither is wider than its maximum
		{"12345", "漢字漢字", "12345  漢…   c"},      // a character of two cells is not cut in half
	} {
		if got := c.Row([]Span{Text(row.a), Text(row.b), Text("c")}).String(); got != row.want {
			t.Errorf("row %s: %q; want %q", row.a, got, row.want)
		}
	}
}

func TestRedrawIsOneLine(t *testing.T) {
	var out bytes.Buffer
	p := NewPrinter(&out, nil)
	if err := p.Redraw(Line{Text(strings.Repeat("x", 200))}, 20); err != nil {
		t.Fatal(err)
	}
	if want := "\r" + strings.Repeat("x", 18) + "…"; !strings.HasPrefix(out.String(), want) || strings.Contains(out.String(), "\n") {
		t.Errorf("got %q; want %q and the rest of the line erased", out.String(), want)
	}
}

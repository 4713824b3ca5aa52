// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// examples are those of a set: what is all of it, and what is nothing. testdata/card.txt says how they are written.
func examples(t testing.TB, set string) (is, isNot []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", set+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		sign, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		text = strings.NewReplacer("¦", "", "⏎", "\n").Replace(text)
		switch {
		case sign == "+" && text != "":
			is = append(is, text)
		case sign == "-" && text != "":
			isNot = append(isNot, text)
		case sign != "#":
			t.Fatalf("%s: %q is no line of examples", set, line)
		}
	}
	return is, isNot
}

func TestExamples(t *testing.T) {
	for _, s := range builtin {
		t.Run(s.Name, func(t *testing.T) {
			all, err := new(Library).Machines(s.Name)
			if err != nil {
				t.Fatal(err)
			}
			m := all[0]
			is, isNot := examples(t, s.Name)
			if len(is) < 3 || len(isNot) < 3 {
				t.Fatalf("%d true and %d false examples", len(is), len(isNot))
			}
			for _, text := range is {
				got := string(dfa.Overwrite([]byte(text), false, m))
				// Of a longer name that ends as the set has it the beginning may stay.
				name, _, _ := strings.Cut(got, "*")
				if strings.Trim(got[len(name):], "*") != "" || name == got || name != "" && (s.Name != "dsn" && s.Name != "session" || strings.ContainsAny(name, "=: ")) {
					t.Errorf("%q became %q", text, got)
				}
			}
			for _, text := range isNot {
				if got := string(dfa.Overwrite([]byte(text), false, m)); got != text {
					t.Errorf("%q became %q", text, got)
				}
			}
		})
	}
}

// TestDocumented: docs/sets.md has every set as it is.
func TestDocumented(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "sets.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range builtin {
		if line := fmt.Sprintf("| `%s` | %s | %s |", s.Name, s.About, s.Source); !strings.Contains(string(data), line) {
			t.Errorf("docs/sets.md wants\n%s", line)
		}
	}
}

// FuzzParse: what Parse writes stands for the same sets when it is read again, and there is a machine for each but an owner's.
func FuzzParse(f *testing.F) {
	for _, list := range []string{All, "card,email", "email,card,card", "uuid,all,shop/order", "a/b,a/b", ",", "all,all", "time"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		canonical, err := Parse(list)
		if err != nil {
			return
		}
		if again, err := Parse(canonical); err != nil || again != canonical {
			t.Errorf("%q is %q, and that is %q, %v", list, canonical, again, err)
		}
		if both := Union(canonical, canonical); both != canonical {
			t.Errorf("%q and itself is %q", canonical, both)
		}
		if own := Own(canonical); len(own) > 0 {
			return
		}
		machines, err := new(Library).Machines(canonical)
		if err != nil || len(machines) == 0 {
			t.Errorf("%q has %d machines, %v", canonical, len(machines), err)
		}
	})
}

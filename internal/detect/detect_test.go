// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

func TestSizes(t *testing.T) {
	all, err := new(Library).Machines(All)
	if err != nil {
		t.Fatal(err)
	}
	image, err := dfa.NewImage(all)
	if err != nil {
		t.Fatal(err)
	}
	words := 0
	for _, m := range all {
		words += len(m.Class) + len(m.Forward.Next) + len(m.Forward.Flags) + len(m.Backward.Next) + len(m.Backward.Flags)
	}
	t.Logf("all: %d words, and %d of the gate, laid out in %d", words, len(all[0].Gate.Next)+len(all[0].Gate.Seen), len(image.Words))
	if words > dfa.MaxWords/2 {
		t.Errorf("the built-in sets take %d words of %d: leave room for an owner's", words, dfa.MaxWords)
	}
}

func TestParse(t *testing.T) {
	for list, want := range map[string]string{
		"card": "card", "email,card": "card,email", "card,card": "card", "all": All, "all,card": All, "shop/order,all": "all,shop/order",
		"z/b,a/c,email": "email,a/c,z/b", "time,uuid": "uuid,time", "a/b,uuid,all": "all,uuid,a/b", "uuid,card": "card,uuid",
	} {
		got, err := Parse(list)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", list, got, err, want)
		}
		if again, err := Parse(got); err != nil || again != got {
			t.Errorf("Parse(%q) = %q, %v", got, again, err)
		}
	}
	var every []string
	for _, s := range Sets() {
		every = append(every, s.Name)
	}
	if got, err := Parse(strings.Join(every, ",")); err != nil || got != All {
		t.Errorf("every set by its name is %q, %v", got, err)
	}
	for _, list := range []string{"", ",", "card,", "cards", "All", "/x", "x/", "X/y", "a b/c", "a//b", strings.Repeat("x", 64) + "/y"} {
		if got, err := Parse(list); err == nil {
			t.Errorf("Parse(%q) = %q", list, got)
		}
	}
}

func TestOwnSets(t *testing.T) {
	l, err := NewLibrary([]Pattern{{"shop/order", `ORD-[0-9]{6}`}, {"shop/sku", `[A-Z]{3}-[0-9]+`}})
	if err != nil {
		t.Fatal(err)
	}
	machines, err := l.Machines("email,shop/order")
	if err != nil || len(machines) != 2 {
		t.Fatalf("%d machines, %v", len(machines), err)
	}
	if got := string(dfa.Overwrite([]byte("ORD-123456 of a@b.example, not ORD-12"), false, machines...)); got != "********** of ***********, not ORD-12" {
		t.Errorf("%q is left", got)
	}
	if again, err := l.Machines("shop/order"); err != nil || again[0] != machines[1] {
		t.Error("the same set is another machine")
	}
	if _, err := l.Machines("shop/none"); err == nil || !strings.Contains(err.Error(), "shop/none") {
		t.Errorf("a set that there is not: %v", err)
	}
	for want, own := range map[string][]Pattern{
		"defined twice": {{"a/b", "x"}, {"a/b", "y"}}, "a slash": {{"ab", "x"}}, "no pattern": {{"a/b", ""}}, "at most 512": {{"a/b", strings.Repeat("x", 513)}},
		"missing closing": {{"a/b", "(x"}}, "Perl syntax": {{"a/b", "x(?=y)"}}, "states": {{"a/b", "(a|b)*a(a|b){20}"}}, "at most 16": make([]Pattern, 17),
	} {
		if _, err := NewLibrary(own); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want an error with %q", own, err, want)
		}
	}
}

// TestTables: what is embedded is what the sets' patterns and hints become, with the hints proved.
func TestTables(t *testing.T) {
	made, err := MakeTables()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, embedded) {
		t.Error("the embedded tables are not those of the sets: make generate")
	}
	for _, cut := range []int{0, 1, 100, len(embedded) / 2, len(embedded) - 1} {
		if _, err := readTables(embedded[:cut]); err == nil {
			t.Errorf("the first %d bytes of the tables are taken for all", cut)
		}
	}
}

// TestHarmlessLinesHaveNoHints: of what every log has no machine runs.
func TestHarmlessLinesHaveNoHints(t *testing.T) {
	all, err := builtinTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`level=info msg="order accepted" items=3 shop=berlin took=12ms retries=0 queue=default`,
		`2026-11-23T10:04:05.123Z INFO cart.go:112 checkout of 3 items for 49.90 EUR done in 12.5 ms`,
		`{"time":"2026-11-23T10:04:05Z","level":"warn","msg":"slow query","table":"orders","rows":1200,"ms":431}`,
		`SELECT id, name, price FROM products WHERE shop_id = $1 AND price < $2 ORDER BY name LIMIT 50`,
		`GET /shop/cart?item=42&count=3 HTTP/1.1`,
	} {
		if seen := all.Gate.Look([]byte(line)); seen != 0 {
			for i, s := range sets {
				if seen&(1<<i) != 0 {
					t.Errorf("%s has the hint of %s", line, s.Name)
				}
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package detect knows what secrets and identifiers look like: sets of patterns that values are searched for in the kernel.
//
// A pattern finds a secret inside of a longer text, so it says itself where one may begin. RE2 has no look-behind; where a letter may
// stand right before a number, the pattern takes that letter in, and it is overwritten too. The same goes for the names before a secret: of
// `Bearer xyz` and `password=xyz` all is overwritten.
package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// All is the name of all sets of secrets together, which are those that Sets returns.
const All = "all"

// A Set is what one kind of secret looks like.
type Set struct {
	Name    string
	About   string // for people
	Source  string // where the form is laid down
	pattern string
	apart   dfa.Apart
	check   dfa.Check

	// hint is in every match, as dfa.NewGate has hints: nothing but a set's hints is looked for in values that have none. They are
	// cheap together, so they say less than the pattern, but of what is in every log line, such as a time, none should be one.
	hint string
}

// Pattern is what the set looks for, before its check and without what may not follow it, in Go's syntax.
func (s *Set) Pattern() string { return s.pattern }

var byName = func() map[string]int {
	m := make(map[string]int)
	for i, s := range builtin {
		m[s.Name] = i
	}
	return m
}()

var names = func() []string {
	var list []string
	for _, s := range builtin {
		list = append(list, s.Name)
	}
	return list
}()

// builtin are the sets of secrets and, behind them, those of what is none.
var builtin = slices.Concat(sets, harmless)

// Sets are the sets of what may be secret, in the order in which their machines run.
func Sets() []*Set { return slices.Clone(sets) }

// Parse reads names of sets with commas between them, and writes them in the one way that stands for the same sets. Names with a slash
// are an owner's: whether there are such sets is not known here.
func Parse(list string) (string, error) {
	wanted, own := make(map[int]bool), []string{}
	for name := range strings.SplitSeq(list, ",") {
		i, known := byName[name]
		switch {
		case name == All:
			for i := range sets {
				wanted[i] = true
			}
		case known:
			wanted[i] = true
		case !isOwnName(name):
			return "", fmt.Errorf("unknown set %.32q: want %s, some of %s, or one of your own, with a slash in its name", name, All, strings.Join(names, " "))
		case !slices.Contains(own, name):
			own = append(own, name)
		}
	}
	if len(own) > MaxPatterns {
		return "", fmt.Errorf("%d sets of your own; at most %d", len(own), MaxPatterns)
	}
	var canonical []string
	all := true
	for i := range sets {
		all = all && wanted[i]
	}
	if all {
		canonical = []string{All}
	}
	for i, s := range builtin {
		if wanted[i] && (!all || i >= len(sets)) {
			canonical = append(canonical, s.Name)
		}
	}
	slices.Sort(own)
	return strings.Join(append(canonical, own...), ","), nil
}

// Union is the sets of two lists as Parse writes them.
func Union(a, b string) string {
	both, err := Parse(a + "," + b)
	if err != nil {
		return All
	}
	return both
}

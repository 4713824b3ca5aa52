// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// Bounds of sets that are not built in.
const (
	MaxPatterns     = 16  // in one list of rules
	maxPatternBytes = 512 // of one
	maxNameBytes    = 64
)

// A Pattern is a set that an owner of data defines. Its name has a slash in it, so that it is never that of a built-in set.
type Pattern struct {
	Name    string `json:"name"`
	Pattern string `json:"pattern"` // in Go's syntax, https://pkg.go.dev/regexp/syntax
}

var ownName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$`)

func isOwnName(name string) bool { return len(name) <= maxNameBytes && ownName.MatchString(name) }

// Validate says what is wrong with a pattern, for the one who wrote it. It finds out by making its tables.
func (p *Pattern) Validate() error {
	_, err := p.machine()
	return err
}

func (p *Pattern) machine() (*dfa.Machine, error) {
	switch {
	case !isOwnName(p.Name):
		return nil, fmt.Errorf("the set %.80q: want a name with a slash in it, of lower-case letters, digits and . _ -, such as shop/order; at most %d bytes", p.Name, maxNameBytes)
	case p.Pattern == "":
		return nil, fmt.Errorf("the set %s has no pattern", p.Name)
	case len(p.Pattern) > maxPatternBytes:
		return nil, fmt.Errorf("the pattern of the set %s has %d bytes; at most %d", p.Name, len(p.Pattern), maxPatternBytes)
	}
	m, err := dfa.Compile(p.Pattern, dfa.NoCheck)
	if err != nil {
		return nil, fmt.Errorf("the set %s: %w", p.Name, err)
	}
	return m, nil
}

// A Library knows the built-in sets and some of an owner's.
type Library struct {
	own map[string]*dfa.Machine
}

// NewLibrary makes the tables of an owner's sets. The errors tell who wrote them what is wrong.
func NewLibrary(own []Pattern) (*Library, error) {
	if len(own) > MaxPatterns {
		return nil, fmt.Errorf("%d sets; at most %d", len(own), MaxPatterns)
	}
	l := &Library{own: make(map[string]*dfa.Machine, len(own))}
	for i := range own {
		p := &own[i]
		if l.own[p.Name] != nil {
			return nil, fmt.Errorf("the set %s is defined twice", p.Name)
		}
		m, err := p.machine()
		if err != nil {
			return nil, err
		}
		l.own[p.Name] = m
	}
	return l, nil
}

// Machines are those of a list as Parse writes it, the built-in ones first, each the same one whenever it is asked for. It is
// an error if a set is not known.
func (l *Library) Machines(list string) ([]*dfa.Machine, error) {
	if err := l.Known(list); err != nil {
		return nil, err
	}
	t, err := builtinTables()
	if err != nil {
		return nil, err
	}
	var machines []*dfa.Machine
	wanted := strings.Split(list, ",")
	for i, s := range builtin {
		if i < len(sets) && slices.Contains(wanted, All) || slices.Contains(wanted, s.Name) {
			machines = append(machines, t.Machines[i])
		}
	}
	for _, name := range Own(list) {
		machines = append(machines, l.own[name])
	}
	return machines, nil
}

// Known says whether every set of a list, as Parse writes it, is built in or defined. It reads no tables.
func (l *Library) Known(list string) error {
	for _, name := range Own(list) {
		if l.own[name] == nil {
			return fmt.Errorf("nothing defines the set %s", name)
		}
	}
	return nil
}

// Own are the names in a list, as Parse writes it, that are not built in.
func Own(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(name string) bool { return !strings.Contains(name, "/") })
}

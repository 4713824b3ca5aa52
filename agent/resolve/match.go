// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/goabi"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// A function is one with code of its own, as a request found it.
type function struct {
	name    string // of the symbol
	address uint64
	debug   *debuginfo.Function // nil: no debug information knows it
}

// maxCandidates bounds the names in an error.
const maxCandidates = 20

// Ranks of a match, the best last. Only the best of those that occur counts: who types a full name means that function.
const (
	noMatch    = iota
	baseMatch  // without type arguments, without a clone's or a convention's suffix
	plainMatch // without the parentheses and stars of Go's receivers
	suffixMatch
	exactMatch
)

// clone ends the names of functions that GCC and clang made out of another one.
var clone = regexp.MustCompile(`\.(constprop|isra|part|lto_priv|llvm|localalias)(\.\d+)*$`)

// A pattern is a function's name as a request has it: FILE:NAME or NAME, by suffix.
type pattern struct {
	text  string // the name
	plain string
	last  string // the last identifier, which every match contains
	file  string
}

func newPattern(text string) pattern {
	p := pattern{text: text}
	if i := strings.LastIndex(text, ":"); i > 0 && text[i-1] != ':' && !strings.Contains(text, "::") {
		p.file, p.text = text[:i], text[i+1:]
	}
	p.plain = plain(p.text)
	p.last = base(p.plain)
	if i := strings.LastIndexAny(p.last, "./"); i >= 0 {
		p.last = p.last[i+1:]
	}
	return p
}

// rank says how well a symbol's name matches.
func (p pattern) rank(name string) int {
	switch {
	case !strings.Contains(name, p.last):
		return noMatch // cheap, and nearly all names end here
	case name == p.text:
		return exactMatch
	case strings.HasSuffix(name, ".cold"):
		return noMatch // the unlikely part of a function, which nobody calls
	case hasSuffix(name, p.text):
		return suffixMatch
	case hasSuffix(plain(name), p.plain):
		return plainMatch
	case hasSuffix(base(plain(name)), p.plain):
		return baseMatch
	}
	return noMatch
}

// hasSuffix is strings.HasSuffix at the border of an identifier.
func hasSuffix(name, suffix string) bool {
	if suffix == "" || !strings.HasSuffix(name, suffix) {
		return false
	}
	rest := name[:len(name)-len(suffix)]
	return rest == "" || strings.HasSuffix(rest, ".") || strings.HasSuffix(rest, "/") || strings.HasSuffix(rest, "(") || strings.HasSuffix(rest, "*")
}

// plain writes a Go method without the decoration of its receiver: main.(*Cart).Checkout as main.Cart.Checkout.
func plain(name string) string {
	if !strings.ContainsAny(name, "(*)") {
		return name
	}
	return strings.NewReplacer("(", "", "*", "", ")", "").Replace(name)
}

// base takes off type arguments and what a compiler appended.
func base(name string) string {
	name = strings.TrimSuffix(name, goabi.ABI0Suffix)
	if strings.Contains(name, "[") {
		var b strings.Builder
		depth := 0
		for _, r := range name {
			switch {
			case r == '[':
				depth++
			case r == ']':
				depth--
			case depth == 0:
				b.WriteRune(r)
			}
		}
		name = b.String()
	}
	if i := clone.FindStringIndex(name); i != nil {
		name = name[:i[0]]
	}
	return name
}

// find looks for the one function that a request means.
func (p *program) find(text string) (*function, error) {
	if len(p.symbols) == 0 {
		return nil, p.stripped()
	}
	pat := newPattern(text)
	found := p.match(pat)
	if pat.file != "" {
		found = p.inFile(found, pat.file)
	}
	if len(found) > 1 {
		found = p.withoutWrappers(found)
	}
	switch len(found) {
	case 0:
		return nil, p.notFound(text, pat)
	case 1:
		f := found[0]
		return &f, p.attachDebug(&f)
	}
	e := problem.New(problem.InvalidArgument, "%q means %d functions of %s: name one of them", text, len(found), path.Base(p.identity.Path))
	for _, f := range found[:min(len(found), maxCandidates)] {
		e.Candidates = append(e.Candidates, p.candidate(f, found))
	}
	return nil, e
}

// match returns the functions of the best rank, one for each address, by name.
func (p *program) match(pat pattern) []function {
	best := baseMatch
	var found []function
	for _, s := range p.symbols {
		r := pat.rank(s.Name)
		if r < best {
			continue
		}
		if r > best {
			best, found = r, found[:0]
		}
		if n := len(found); n > 0 && found[n-1].address == s.Address {
			continue // symbols are sorted by address: an alias
		}
		found = append(found, function{name: s.Name, address: s.Address})
	}
	slices.SortStableFunc(found, func(a, b function) int { return cmp.Compare(a.name, b.name) })
	return found
}

// attachDebug finds what the debug information knows of a function.
func (p *program) attachDebug(f *function) error {
	if p.debug == nil || f.debug != nil {
		return nil
	}
	var err error
	if f.debug, err = p.debug.FunctionAt(f.address); errors.Is(err, dwarf.ErrUnknownPC) {
		return nil
	}
	return err
}

func (p *program) inFile(list []function, file string) []function {
	var in []function
	for _, f := range list {
		if p.attachDebug(&f) == nil && f.debug != nil && (f.debug.File == file || strings.HasSuffix(f.debug.File, "/"+file)) {
			in = append(in, f)
		}
	}
	return in
}

// withoutWrappers leaves the functions that a person wrote, if there are any: Go's compiler makes (*T).M for each T.M.
func (p *program) withoutWrappers(list []function) []function {
	if p.debug == nil || len(list) > maxCandidates {
		return list
	}
	var written []function
	for _, f := range list {
		if p.attachDebug(&f) == nil && f.debug != nil && !f.debug.IsWrapper {
			written = append(written, f)
		}
	}
	if len(written) == 0 {
		return list
	}
	return written
}

// candidate is what a requester can type to mean this one of several functions.
func (p *program) candidate(f function, among []function) string {
	same := 0
	for _, other := range among {
		if other.name == f.name {
			same++
		}
	}
	if same < 2 || p.attachDebug(&f) != nil || f.debug == nil || f.debug.File == "" {
		return f.name
	}
	return path.Base(f.debug.File) + ":" + f.name
}

func (p *program) stripped() error {
	return problem.New(problem.FailedPrecondition, "%s is stripped: it has neither debug information nor a symbol table, so that no function can be found; %s",
		p.identity.Path, howToKeep(p.isGo))
}

// howToKeep says what to do about a file without names.
func howToKeep(isGo bool) string {
	if isGo {
		return `build it without -ldflags="-s -w"`
	}
	return "build it with -g and do not strip it"
}

// notFound tells a function that was inlined everywhere from one that is not there.
func (p *program) notFound(text string, pat pattern) error {
	if p.debug != nil {
		inlined, err := p.debug.InlinedNamed(func(name string) bool { return pat.rank(name) != noMatch }, 5)
		if err != nil {
			return err
		}
		if len(inlined) > 0 {
			return inlinedEverywhere(inlined[0], p.isGo)
		}
	}
	e := problem.New(problem.NotFound, "no function %q in %s", text, path.Base(p.identity.Path))
	if p.debug == nil && !p.isGo && !p.file.HasSection(".symtab") {
		e.Message += ", which is stripped: only what it exports is known; " + howToKeep(p.isGo)
	}
	e.Candidates = p.nearest(pat)
	if len(e.Candidates) > 0 {
		e.Message += "; the nearest: " + strings.Join(e.Candidates[:min(len(e.Candidates), 3)], ", ")
	}
	return e
}

func inlinedEverywhere(in *debuginfo.Inlined, isGo bool) error {
	var at []string
	for _, place := range in.Places {
		at = append(at, fmt.Sprintf("%s (%s:%d)", place.Function, path.Base(place.File), place.Line))
	}
	if in.Sum > len(at) {
		at = append(at, fmt.Sprintf("%d more", in.Sum-len(at)))
	}
	how := "__attribute__((noinline))"
	if isGo {
		how = "//go:noinline"
	}
	if in.Sum == 0 {
		return problem.New(problem.FailedPrecondition, "%s has no code of its own: the compiler removed every call of it", in.Name)
	}
	return problem.New(problem.FailedPrecondition, "%s has no code of its own: it was inlined into %s; probe one of these, or build it with %s",
		in.Name, strings.Join(at, ", "), how)
}

// nearest lists the functions whose names differ least from a pattern.
func (p *program) nearest(pat pattern) []string {
	const most = 5
	want := strings.ToLower(pat.plain)
	segments := strings.Count(want, ".") + 1
	limit := max(2, len(want)/3)
	type near struct {
		name     string
		distance int
	}
	var list []near
	seen := make(map[string]bool)
	for _, s := range p.symbols {
		name := base(plain(s.Name))
		tail := strings.ToLower(lastSegments(name, segments))
		distance := editDistance(want, tail, limit)
		if distance > limit && len(pat.last) > 2 && strings.Contains(strings.ToLower(lastSegments(name, 1)), strings.ToLower(pat.last)) {
			distance = limit // a part of the name
		}
		if distance > limit || seen[s.Name] || strings.HasSuffix(s.Name, ".cold") {
			continue
		}
		seen[s.Name] = true
		list = append(list, near{s.Name, distance})
	}
	slices.SortFunc(list, func(a, b near) int { return cmp.Or(a.distance-b.distance, cmp.Compare(a.name, b.name)) })
	var names []string
	for _, n := range list[:min(len(list), most)] {
		names = append(names, n.name)
	}
	return names
}

// lastSegments is the end of a name behind its n-th last dot.
func lastSegments(name string, n int) string {
	i := len(name)
	for range n {
		dot := strings.LastIndexAny(name[:i], "./")
		if dot < 0 {
			return name
		}
		i = dot
	}
	return name[i+1:]
}

// editDistance is Levenshtein's, or anything above the limit if it is larger than that.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
			least = min(least, row[j+1])
		}
		if least > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}

// SPDX-License-Identifier: Apache-2.0

// Package detect knows what secrets and identifiers look like: sets of patterns that values are searched for in the kernel.
//
// A pattern finds a secret inside of a longer text, so it says itself where one may begin and end. RE2 has no look-around; where a letter may
// stand right beside a number, the pattern takes that letter in, and it is overwritten too.
package detect

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// All is the name of all sets together.
const All = "all"

// A Set is what one kind of secret looks like.
type Set struct {
	Name    string
	About   string // for people
	Source  string // where the form is laid down
	pattern string
	check   dfa.Check
	machine func() (*dfa.Machine, error)
}

func set(name, about, source, pattern string, check dfa.Check) *Set {
	s := &Set{Name: name, About: about, Source: source, pattern: pattern, check: check}
	s.machine = sync.OnceValues(func() (*dfa.Machine, error) { return dfa.Compile(s.pattern, s.check) })
	return s
}

// Pattern is what the set looks for, before its check, in Go's syntax.
func (s *Set) Pattern() string { return s.pattern }

// Pieces of patterns.
const (
	// before and behind stand around a number: not another digit, or the number would be part of a longer one.
	before = `(?:\b|[A-Za-z_])`
	behind = `(?:\b|[A-Za-z_])`

	token = `[A-Za-z0-9_-]`
	octet = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	hex4  = `[0-9A-Fa-f]{1,4}`
)

var sets = []*Set{
	set("card", "payment card numbers that pass the Luhn check", "ISO/IEC 7812-1; 13 to 19 digits, spaced or not",
		before+`[2-6](?:[ -]?[0-9]){12,18}`+behind, dfa.Luhn),
	set("email", "e-mail addresses", "RFC 5321, section 4.1.2, without quoted local parts; RFC 6531 for letters of other scripts",
		`[A-Za-z0-9.!#$%&'*+/=?^_{|}~\x{80}-\x{10ffff}-]+@[A-Za-z0-9\x{80}-\x{10ffff}-]+(?:\.[A-Za-z0-9\x{80}-\x{10ffff}-]+)+`, dfa.NoCheck),
	set("jwt", "JSON web tokens and encrypted ones", "RFC 7515, section 3.1; RFC 7516, section 3.1",
		`eyJ`+token+`*\.`+token+`*\.`+token+`*(?:\.`+token+`*\.`+token+`*)?`, dfa.NoCheck),
	set("credentials", "HTTP credentials behind their scheme", "RFC 6750, section 2.1; RFC 7617",
		`(?i:bearer|basic|digest|negotiate|token)[ \t]+[A-Za-z0-9._~+/-]{6,}=*`, dfa.NoCheck),
	set("cloudkey", "keys of cloud and code providers", "the providers' documents of their prefixes",
		`(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z2-7]{16}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]+|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|`+
			`glpat-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|`+
			`SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{36}|hvs\.[A-Za-z0-9_-]{20,}|dop_v1_[0-9a-f]{64}|AccountKey=[A-Za-z0-9+/]{80,}=*`, dfa.NoCheck),
	set("privatekey", "private keys in PEM, up to the end of the block or of the value", "RFC 7468",
		`-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?s:.)*`, dfa.NoCheck),
	set("iban", "international bank account numbers that pass their check", "ISO 13616-1",
		`\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}\b`, dfa.Mod97),
	set("nationalid", "national identifiers: US SSN, UK NINO, DE Steuer-ID spaced, FR INSEE, ES DNI and NIE, IT codice fiscale, BR CPF, IN PAN", "the issuing authorities' formats",
		before+`(?:[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}|[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]|[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}|`+
			`[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}|[0-9XYZ][0-9]{7}[A-HJ-NP-TV-Z]|[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]|`+
			`[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z])`+behind, dfa.NoCheck),
	set("phone", "telephone numbers in international form, or as North America writes them", "ITU-T E.164; E.123",
		`\+[0-9](?:[ ().-]{0,2}[0-9]){7,14}\b|`+before+`00[1-9](?:[ ()./-]{0,2}[0-9]){8,13}\b|(?:\b|\()[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}\b`, dfa.NoCheck),
	set("ipv4", "IPv4 addresses", "RFC 791; dotted decimal",
		before+octet+`(?:\.`+octet+`){3}`+behind, dfa.NoCheck),
	set("ipv6", "IPv6 addresses", "RFC 4291, section 2.2; RFC 5952",
		`(?:`+hex4+`:){7}`+hex4+`|(?:`+hex4+`:){1,7}(?::`+hex4+`){1,6}|(?:`+hex4+`:){1,7}:|::(?:ffff:)?(?:`+octet+`(?:\.`+octet+`){3}|`+hex4+`(?::`+hex4+`){0,6})`, dfa.NoCheck),
	set("urlsecret", "URLs with a user's name or password, database connection strings among them", "RFC 3986, section 3.2.1",
		`[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@"'<>]*@[^\s"'<>]*`, dfa.NoCheck),
	set("dsn", "passwords in connection strings of keys and values", "the drivers' documents",
		`(?i:password|passwd|pwd|secret|api_?key|access_?token|client_secret)["']?[ ]?[=:][ ]?(?:"[^"\n]*"?|'[^'\n]*'?|[^\s;,&"']+)`, dfa.NoCheck),
	set("session", "session cookies", "RFC 6265, and the frameworks' names for them",
		`(?i:jsessionid|phpsessid|asp\.net_sessionid|connect\.sid|laravel_session|_session_id|sessionid|session_id|sid|csrftoken|xsrf-token)=[^;\s,"]+`, dfa.NoCheck),
}

var byName = func() map[string]int {
	m := make(map[string]int)
	for i, s := range sets {
		m[s.Name] = i
	}
	return m
}()

var names = func() []string {
	var list []string
	for _, s := range sets {
		list = append(list, s.Name)
	}
	return list
}()

// Sets are the sets there are, in the order in which their machines run.
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
	if len(wanted) == len(sets) {
		canonical = []string{All}
	} else {
		for _, i := range slices.Sorted(maps.Keys(wanted)) {
			canonical = append(canonical, sets[i].Name)
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

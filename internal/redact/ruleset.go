// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/detect"
)

// IDs of the rules that are built in.
const (
	RuleSecretName     = "names/secret"     // a name that means a secret: drop, and nothing lowers it
	RuleIdentifierName = "names/identifier" // a name that means an identifier: drop, unless an owner's rule speaks of the field
	RuleDefaultText    = "default/string"   // strings and bytes of which nothing speaks: digest
	RuleDefaultPointer = "default/pointer"  // pointers of which nothing speaks: drop, an address defeats ASLR
	RuleDefaultScalar  = "default/scalar"   // integers, floats, booleans, lengths of which nothing speaks: keep
	RuleDefaultOther   = "default/other"    // what cannot be read whole, such as structs: digest, should it ever be
	RuleKernelAddress  = "kernel/address"   // pointers in the kernel: drop, and nothing lowers it
	RuleRequest        = "request"          // the requester asked for it
)

// A Ruleset is everything that decides about fields on one side: the shipped rules, which are part of the program, and
// what was added to them. The zero Ruleset is Shipped. A Ruleset is not changed once made.
//
// Its JSON holds only what was added: the shipped rules of whoever reads it apply in any case.
type Ruleset struct {
	owner      []Rule // of the field's owners: replace the defaults
	compulsory []Rule // of whoever else has a say, the node above all: only ever make stricter
	patterns   []detect.Pattern
}

// Shipped returns the rules that are built in.
func Shipped() *Ruleset { return &Ruleset{} }

// WithOwner returns a Ruleset with an owner's rules in place of any it had.
func (rs *Ruleset) WithOwner(rules []Rule) (*Ruleset, error) {
	if err := errors.Join(validateRules(rules), rs.known(rules)); err != nil {
		return nil, fmt.Errorf("owner's rules: %w", err)
	}
	more := *rs
	more.owner = slices.Clone(rules)
	return &more, nil
}

// WithCompulsory returns a Ruleset with further rules that can only make a decision stricter.
func (rs *Ruleset) WithCompulsory(rules []Rule) (*Ruleset, error) {
	all := slices.Concat(rs.compulsory, rules)
	if err := errors.Join(validateRules(all), rs.known(all)); err != nil {
		return nil, fmt.Errorf("compulsory rules: %w", err)
	}
	more := *rs
	more.compulsory = all
	return &more, nil
}

// WithPatterns returns a Ruleset with further sets, for its rules and those that it gets to name. A name stands for one pattern, whoever
// says it: two sides that mean different ones by a name are an error.
func (rs *Ruleset) WithPatterns(patterns []detect.Pattern) (*Ruleset, error) {
	more := *rs
	more.patterns = slices.Clone(rs.patterns)
	for _, p := range patterns {
		if i := slices.IndexFunc(rs.patterns, func(old detect.Pattern) bool { return old.Name == p.Name }); i >= 0 {
			if rs.patterns[i] != p {
				return nil, fmt.Errorf("the set %.64s has two patterns: name one of them otherwise", p.Name)
			}
			continue
		}
		more.patterns = append(more.patterns, p)
	}
	if _, err := detect.NewLibrary(more.patterns); err != nil {
		return nil, err
	}
	return &more, nil
}

// Patterns are the sets that are not built in.
func (rs *Ruleset) Patterns() []detect.Pattern { return rs.patterns }

// known says whether every set that rules name is built in or defined.
func (rs *Ruleset) known(rules []Rule) error {
	for i, r := range rules {
		for _, name := range detect.Own(r.Action.Sets) {
			if !slices.ContainsFunc(rs.patterns, func(p detect.Pattern) bool { return p.Name == name }) {
				return fmt.Errorf("rule %d (%.64s): nothing defines the set %s", i+1, r.ID, name)
			}
		}
	}
	return nil
}

type rulesetJSON struct {
	Owner      []Rule           `json:"owner,omitempty"`
	Compulsory []Rule           `json:"compulsory,omitempty"`
	Patterns   []detect.Pattern `json:"patterns,omitempty"`
}

// MarshalJSON writes the rules that were added.
func (rs Ruleset) MarshalJSON() ([]byte, error) {
	return json.Marshal(rulesetJSON{rs.owner, rs.compulsory, rs.patterns})
}

// UnmarshalJSON reads what MarshalJSON writes and validates it; the bytes may be anybody's.
func (rs *Ruleset) UnmarshalJSON(data []byte) error {
	var added rulesetJSON
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&added); err != nil {
		return fmt.Errorf("ruleset: %w", err)
	}
	more := Ruleset{owner: added.Owner, compulsory: added.Compulsory, patterns: added.Patterns}
	if _, err := detect.NewLibrary(added.Patterns); err != nil {
		return fmt.Errorf("ruleset: %w", err)
	}
	for _, rules := range [][]Rule{added.Owner, added.Compulsory} {
		if err := errors.Join(validateRules(rules), more.known(rules)); err != nil {
			return fmt.Errorf("ruleset: %w", err)
		}
	}
	*rs = more
	return nil
}

// Digest names the policy: "sha256:" and the hash, in hex, of the shipped vocabulary and the rules that were added.
func (rs *Ruleset) Digest() string {
	data, err := json.Marshal(struct {
		Secrets     vocabulary `json:"secrets"`
		Identifiers vocabulary `json:"identifiers"`
		Added       Ruleset    `json:"added"`
	}{secrets, identifiers, *rs})
	if err != nil {
		panic("redact: a Ruleset holds only values that have a JSON form: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A Field is what rules look at.
type Field struct {
	Path     string   // c.user.email
	Names    []string // c, user, email
	Types    []string // the type of each of these, empty where it is not known; none if nothing is
	Embedded []int    // indexes of names that a path may leave out
	TypeName string
	Kind     string // as target.Kind has it
	Size     int    // in bytes, of a number
	Function string // that the field is an argument of, or lies below one
}

// A Decision is an action and the rule that speaks for it. Note says for people why it is not the rule's own action.
type Decision struct {
	Action Action
	Rule   string
	Note   string
}

// stricter keeps the decision that stands, and so the rule that is named, unless the other one is stricter.
func (d Decision) stricter(other Decision) Decision {
	both := Stricter(d.Action, other.Action)
	switch both {
	case d.Action:
		return d
	case other.Action:
		return other
	default:
		return Decision{both, other.Rule, "as strict as " + d.Rule + " and " + other.Rule + " together"}
	}
}

// With returns the decision after a further action, named by its rule, was asked for: never a weaker one.
func (d Decision) With(a Action, rule string) Decision {
	return d.stricter(Decision{Action: a, Rule: rule})
}

// Decide says what becomes of a field. In this order: what stands is the strictest of the owner's rules that speak of the
// field itself; where there is none, drop under a name that means an identifier; else the default of its kind. (Of a field
// whose name means an identifier only a rule speaks that spells its last name out: `c.*` does not mean c.card.) Then
// whatever is stricter: an owner's rule about something the field lies in, a compulsory rule, the floor under names that
// mean secrets. An action that means nothing for the field's kind becomes drop. Patterns inside of values are not looked for:
// strings of which no rule speaks are therefore digested, and integers of every size are kept.
func (rs *Ruleset) Decide(f Field) Decision {
	decision, spoken := Decision{}, false
	identifier := f.means(&identifiers)
	var outer []Decision
	for i := range rs.owner {
		r := &rs.owner[i]
		d := Decision{Action: r.Action, Rule: r.ID}
		switch itself, around := r.Match.matches(&f); {
		case around, itself && identifier && !r.Match.spellsOut():
			outer = append(outer, d)
		case itself && spoken:
			decision = decision.stricter(d)
		case itself:
			decision, spoken = d, true
		}
	}
	if !spoken {
		decision = unspoken(&f, identifier)
	}
	for _, d := range outer {
		decision = decision.stricter(d)
	}
	for i := range rs.compulsory {
		r := &rs.compulsory[i]
		if itself, around := r.Match.matches(&f); itself || around {
			decision = decision.stricter(Decision{Action: r.Action, Rule: r.ID})
		}
	}
	if f.means(&secrets) {
		return Decision{Action: Action{Kind: Drop}, Rule: RuleSecretName}
	}
	return decision.For(f.Kind)
}

// For returns the decision as it can be carried out for a kind of value, with a note where it had to become drop.
func (d Decision) For(kind string) Decision {
	if possible := d.Action.For(kind); possible != d.Action {
		d.Note = fmt.Sprintf("%s means nothing for a value of kind %s: dropped", d.Action, kind)
		d.Action = possible
	}
	return d
}

// unspoken decides about a field of which no owner's rule speaks.
func unspoken(f *Field, identifier bool) Decision {
	if identifier {
		return Decision{Action: Action{Kind: Drop}, Rule: RuleIdentifierName}
	}
	switch f.Kind {
	case "int", "uint", "bool", "float", "length", "error":
		return Decision{Action: Action{Kind: Keep}, Rule: RuleDefaultScalar}
	case "string", "cstring", "bytes":
		return Decision{Action: Action{Kind: Digest}, Rule: RuleDefaultText}
	case "pointer":
		return Decision{Action: Action{Kind: Drop}, Rule: RuleDefaultPointer}
	default:
		return Decision{Action: Action{Kind: Digest}, Rule: RuleDefaultOther}
	}
}

// means looks at every name on the way, at the type, and at what the types on the way are called in the end: a field of a Password is part of a
// password, one of a PasswordStore is not.
func (f *Field) means(v *vocabulary) bool {
	if slices.ContainsFunc(f.Names, v.means) || v.means(typeWords(f.TypeName)) {
		return true
	}
	return slices.ContainsFunc(f.Types, func(name string) bool {
		return v.endsIn(typeWords(name))
	})
}

// A way is one of the ways in which a field can be named, from the outside in.
type way struct {
	names []string
	types []string // of the same length
}

// maxOptional is how many embedded names are left out in every combination. There are 2^n of these; of further names, all are named.
const maxOptional = 6

// ways are all the ways to name a field: with and without what is embedded.
func (f *Field) ways() []way {
	types := f.Types
	if len(types) != len(f.Names) {
		types = make([]string, len(f.Names))
	}
	optional := f.Embedded[:min(len(f.Embedded), maxOptional)]
	var all []way
	for without := range 1 << len(optional) {
		var w way
		for i, name := range f.Names {
			if at := slices.Index(optional, i); at >= 0 && without>>at&1 == 1 {
				continue
			}
			w.names, w.types = append(w.names, name), append(w.types, types[i])
		}
		all = append(all, w)
	}
	return all
}

// Paths are all the paths to a field, as asked for first.
func (f *Field) Paths() []string {
	paths := []string{f.Path}
	for _, w := range f.ways() {
		paths = append(paths, strings.Join(w.names, "."))
	}
	return paths
}

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
	RuleDefaultText    = "default/string"   // strings and bytes of which nothing speaks: detect:all
	RuleStrictText     = "strict/string"    // the same in the strict profile: digest
	RuleDefaultInteger = "default/integer"  // integers of 64 bits whose type means neither an amount nor a time: bucket from LargeInteger on
	RuleDefaultPointer = "default/pointer"  // pointers of which nothing speaks: drop, an address defeats ASLR
	RuleDefaultScalar  = "default/scalar"   // other integers, floats, booleans, lengths of which nothing speaks: keep
	RuleDefaultOther   = "default/other"    // what cannot be read whole, such as structs: digest, should it ever be
	RuleKernelAddress  = "kernel/address"   // pointers in the kernel: drop, and nothing lowers it
	RuleRequest        = "request"          // the requester asked for it
)

// LargeInteger is the magnitude from which on an integer may well be somebody's number: of an account, a card, a telephone.
const LargeInteger = 100_000_000

// A Ruleset is everything that decides about fields on one side: the shipped rules, which are part of the program, and
// what was added to them. The zero Ruleset is Shipped. A Ruleset is not changed once made.
//
// Its JSON holds only what was added: the shipped rules of whoever reads it apply in any case.
type Ruleset struct {
	added added
}

type added struct {
	Owner       Policy `json:"owner,omitzero"`        // of the field's owners: its rules replace the defaults
	Compulsory  Policy `json:"compulsory,omitzero"`   // of whoever else has a say, the node above all: only ever makes stricter
	Environment string `json:"environment,omitempty"` // that the profile is chosen by
}

// Shipped returns the rules that are built in.
func Shipped() *Ruleset { return &Ruleset{} }

// WithOwner returns a Ruleset with an owner's rules in place of any it had.
func (rs *Ruleset) WithOwner(rules []Rule) (*Ruleset, error) {
	return rs.WithOwnerPolicy(&Policy{Rules: rules})
}

// WithOwnerPolicy returns a Ruleset with an owner's policy in place of any it had.
func (rs *Ruleset) WithOwnerPolicy(p *Policy) (*Ruleset, error) {
	more := *rs
	more.added.Owner = *p
	if err := more.validate(); err != nil {
		return nil, fmt.Errorf("owner's rules: %w", err)
	}
	return &more, nil
}

// WithCompulsory returns a Ruleset with further rules that can only make a decision stricter.
func (rs *Ruleset) WithCompulsory(rules []Rule) (*Ruleset, error) {
	return rs.With(&Policy{Rules: rules})
}

// With returns a Ruleset with a further policy that can only make a decision stricter.
func (rs *Ruleset) With(p *Policy) (*Ruleset, error) {
	more := *rs
	c := &more.added.Compulsory
	c.Rules = slices.Concat(c.Rules, p.Rules)
	c.Patterns = slices.Concat(c.Patterns, p.Patterns)
	if c.Profile != Strict {
		c.Profile = p.Profile
	}
	if len(p.Environments) > 0 {
		return nil, errors.New("compulsory rules: a profile for each environment is for an owner's rules")
	}
	if err := more.validate(); err != nil {
		return nil, fmt.Errorf("compulsory rules: %w", err)
	}
	return &more, nil
}

// In returns the Ruleset for a node of an environment, by which the profile is chosen; "" is none.
func (rs *Ruleset) In(environment string) *Ruleset {
	more := *rs
	more.added.Environment = environment
	return &more
}

// Patterns are the sets that are not built in.
func (rs *Ruleset) Patterns() []detect.Pattern {
	return slices.Concat(rs.added.Owner.Patterns, slices.DeleteFunc(slices.Clone(rs.added.Compulsory.Patterns), func(p detect.Pattern) bool {
		return slices.Contains(rs.added.Owner.Patterns, p)
	}))
}

// profile is the stricter one of those that the two sides name.
func (rs *Ruleset) profile() Profile {
	if rs.added.Compulsory.Profile == Strict {
		return Strict
	}
	return rs.added.Owner.profile(rs.added.Environment)
}

// validate bounds what was added, wherever it came from. A set's name stands for one pattern, whoever says it: that two sides mean
// different ones by a name is an error.
func (rs *Ruleset) validate() error {
	a := &rs.added
	if err := errors.Join(a.Owner.validate(), a.Compulsory.validate()); err != nil {
		return err
	}
	if a.Environment != "" {
		if err := ValidEnvironment(a.Environment); err != nil {
			return err
		}
	}
	own := rs.Patterns()
	if _, err := detect.NewLibrary(own); err != nil {
		return err
	}
	for i, r := range slices.Concat(a.Owner.Rules, a.Compulsory.Rules) {
		if err := known(&r, own); err != nil {
			return fmt.Errorf("rule %d (%.64s): %w", i+1, r.ID, err)
		}
	}
	return nil
}

// MarshalJSON writes what was added.
func (rs Ruleset) MarshalJSON() ([]byte, error) { return json.Marshal(rs.added) }

// UnmarshalJSON reads what MarshalJSON writes and validates it; the bytes may be anybody's.
func (rs *Ruleset) UnmarshalJSON(data []byte) error {
	var more Ruleset
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&more.added); err != nil {
		return fmt.Errorf("ruleset: %w", err)
	}
	if err := more.validate(); err != nil {
		return fmt.Errorf("ruleset: %w", err)
	}
	*rs = more
	return nil
}

// Digest names the policy: "sha256:" and the hash, in hex, of the shipped vocabulary and the rules that were added.
func (rs *Ruleset) Digest() string {
	data, err := json.Marshal(struct {
		Secrets     vocabulary `json:"secrets"`
		Identifiers vocabulary `json:"identifiers"`
		Amounts     vocabulary `json:"amounts"`
		Added       added      `json:"added"`
	}{secrets, identifiers, amounts, rs.added})
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

	Executable string // of the process, as /proc/PID/exe names it
	Workload   string // what runs the process: unit/shop.service, container/ID; empty where it is not known
}

// A Decision is an action and the rule that speaks for it. Note says for people why it is not the rule's own action.
type Decision struct {
	Action Action
	Rule   string
	Note   string
}

// Join keeps the decision that stands, and so the rule that is named, unless the other one is stricter.
func (d Decision) Join(other Decision) Decision {
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
	return d.Join(Decision{Action: a, Rule: rule})
}

// Decide says what becomes of a field. In this order: what stands is the strictest of the owner's rules that speak of the
// field itself; where there is none, drop under a name that means an identifier; else the default of its kind and the profile. (Of a field
// whose name means an identifier only a rule speaks that spells its last name out: `c.*` does not mean c.card.) Then
// whatever is stricter: an owner's rule about something the field lies in, a compulsory rule, the floor under names that
// mean secrets. An action that means nothing for the field's kind is drop.
func (rs *Ruleset) Decide(f Field) Decision {
	decision, spoken := Decision{}, false
	identifier := f.means(&identifiers)
	var outer []Decision
	for i := range rs.added.Owner.Rules {
		r := &rs.added.Owner.Rules[i]
		d := Decision{Action: r.Action, Rule: r.ID}.For(f.Kind)
		switch itself, around := r.Match.matches(&f); {
		case around, itself && identifier && !r.Match.spellsOut():
			outer = append(outer, d)
		case itself && spoken:
			decision = decision.Join(d)
		case itself:
			decision, spoken = d, true
		}
	}
	if !spoken {
		decision = rs.unspoken(&f, identifier)
	}
	for _, d := range outer {
		decision = decision.Join(d)
	}
	for i := range rs.added.Compulsory.Rules {
		r := &rs.added.Compulsory.Rules[i]
		if itself, around := r.Match.matches(&f); itself || around {
			decision = decision.Join(Decision{Action: r.Action, Rule: r.ID}.For(f.Kind))
		}
	}
	if f.means(&secrets) {
		return Decision{Action: Action{Kind: Drop}, Rule: RuleSecretName}
	}
	return decision
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
func (rs *Ruleset) unspoken(f *Field, identifier bool) Decision {
	switch {
	case identifier:
		return Decision{Action: Action{Kind: Drop}, Rule: RuleIdentifierName}
	case isText(f.Kind) && rs.profile() == Strict:
		return Decision{Action: Action{Kind: Digest}, Rule: RuleStrictText}
	case isText(f.Kind):
		return Decision{Action: Action{Kind: Detect, Sets: detect.All}, Rule: RuleDefaultText}
	case (f.Kind == "int" || f.Kind == "uint") && f.Size == 8 && !amounts.means(typeWords(f.TypeName)):
		return Decision{Action: Action{Kind: Bucket, N: LargeInteger}, Rule: RuleDefaultInteger}
	}
	switch f.Kind {
	case "int", "uint", "bool", "float", "length", "error":
		return Decision{Action: Action{Kind: Keep}, Rule: RuleDefaultScalar}
	case "pointer":
		return Decision{Action: Action{Kind: Drop}, Rule: RuleDefaultPointer}
	default:
		return Decision{Action: Action{Kind: Digest}, Rule: RuleDefaultOther}
	}
}

func isText(kind string) bool { return kind == "string" || kind == "cstring" || kind == "bytes" }

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

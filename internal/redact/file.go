// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/strictyaml"
)

// A Profile says what becomes of strings and bytes of which no rule speaks.
type Profile string

// The profiles, the weaker one first.
const (
	Default Profile = "default" // they are searched for everything that is known to be a secret
	Strict  Profile = "strict"  // they are digested
)

// UnmarshalText reads a profile's name.
func (p *Profile) UnmarshalText(text []byte) error {
	if name := Profile(text); name == Default || name == Strict {
		*p = name
		return nil
	}
	return fmt.Errorf("unknown profile %.32q: want %s or %s", text, Default, Strict)
}

func (p Profile) validate() error {
	if p == "" {
		return nil
	}
	return new(Profile).UnmarshalText([]byte(p))
}

// shippedEnvironments are the profiles of environments of which nobody says anything.
var shippedEnvironments = map[string]Profile{"prod": Strict}

// A Policy is what one side says about redaction: the owner of the data by the control plane's file of rules, or a node's.
type Policy struct {
	// Profile is that of environments which Environments does not name; "" is the one that is shipped for the environment.
	Profile      Profile            `json:"profile,omitempty"`
	Environments map[string]Profile `json:"environments,omitempty"`
	Patterns     []detect.Pattern   `json:"sets,omitempty"`
	Rules        []Rule             `json:"rules,omitempty"`
}

// MaxEnvironments is how many environments a policy may name.
const MaxEnvironments = 64

// validate says what is wrong with a policy, wherever it came from.
func (p *Policy) validate() error {
	if err := p.Profile.validate(); err != nil {
		return err
	}
	if len(p.Environments) > MaxEnvironments {
		return fmt.Errorf("%d environments; at most %d", len(p.Environments), MaxEnvironments)
	}
	for name, profile := range p.Environments {
		if err := errors.Join(ValidEnvironment(name), profile.validate()); err != nil || profile == "" {
			return fmt.Errorf("environment %.64q: %w", name, errors.Join(err, errNoProfile(profile)))
		}
	}
	if _, err := detect.NewLibrary(p.Patterns); err != nil {
		return err
	}
	return validateRules(p.Rules)
}

func errNoProfile(p Profile) error {
	if p == "" {
		return errors.New("no profile")
	}
	return nil
}

// ValidEnvironment says what is wrong with an environment's name.
func ValidEnvironment(name string) error {
	if !validID.MatchString(name) {
		return fmt.Errorf("environment %.80q: want lower-case letters, digits and . _ / -, at most 64", name)
	}
	return nil
}

// profile is the one for an environment. Names that nobody knows have the shipped one: default.
func (p *Policy) profile(environment string) Profile {
	if named, ok := p.Environments[environment]; ok {
		return named
	}
	if p.Profile != "" {
		return p.Profile
	}
	if shipped, ok := shippedEnvironments[environment]; ok {
		return shipped
	}
	return Default
}

type policyFile struct {
	Version      int     `yaml:"version"`
	Profile      Profile `yaml:"profile"`
	Environments map[string]struct {
		Profile Profile `yaml:"profile"`
	} `yaml:"environments"`
	Sets  yaml.Node   `yaml:"sets"`
	Rules []yaml.Node `yaml:"rules"`
}

// ParsePolicy reads an owner's rules, a YAML file such as
//
//	version: 1
//	profile: default
//	environments:
//	  prod: {profile: strict}
//	sets:
//	  shop/order: 'ORD-[0-9]{6}'
//	rules:
//	  - {id: payments/card, name: card, action: "suffix:4"}
//	  - {id: shop/sku, path: "*.sku", function: "main.*", action: keep}
//	  - {id: shop/note, name: note, executable: /usr/bin/shop, action: "detect:all,shop/order"}
//
// Unknown keys are errors, and errors name the line. A rule without an ID gets owner/ and its place, counted from 1.
func ParsePolicy(data []byte) (*Policy, error) {
	p, err := parsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("redaction rules: %w", err)
	}
	return p, nil
}

func parsePolicy(data []byte) (*Policy, error) {
	var file policyFile
	if err := strictyaml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != 1 {
		return nil, fmt.Errorf("version is %d; this program reads version 1", file.Version)
	}
	p := &Policy{Profile: file.Profile}
	for name, e := range file.Environments {
		if p.Environments == nil {
			p.Environments = make(map[string]Profile)
		}
		p.Environments[name] = e.Profile
	}
	var err error
	if p.Patterns, err = PatternsFromYAML(&file.Sets); err != nil {
		return nil, err
	}
	if p.Rules, err = RulesFromYAML(file.Rules, "owner", p.Patterns); err != nil {
		return nil, err
	}
	return p, p.validate()
}

// PatternsFromYAML reads a mapping of names to regular expressions, for files that hold one among other things.
func PatternsFromYAML(node *yaml.Node) ([]detect.Pattern, error) {
	if node.IsZero() {
		return nil, nil
	}
	if node.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want sets and their patterns: {shop/order: 'ORD-[0-9]{6}'}", node.Line)
	}
	var patterns []detect.Pattern
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if value.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: the set %.64s: want a regular expression", value.Line, name.Value)
		}
		p := detect.Pattern{Name: name.Value, Pattern: value.Value}
		if slices.ContainsFunc(patterns, func(old detect.Pattern) bool { return old.Name == p.Name }) {
			return nil, fmt.Errorf("line %d: the set %.64s is defined twice", name.Line, p.Name)
		}
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("line %d: %w", value.Line, err)
		}
		if patterns = append(patterns, p); len(patterns) > detect.MaxPatterns {
			return nil, fmt.Errorf("line %d: more than %d sets", name.Line, detect.MaxPatterns)
		}
	}
	return patterns, nil
}

// RulesFromYAML reads the entries of a list of rules, for files that hold one among other things. The IDs of rules without one
// begin with whose they are; own are the sets that the file defines.
func RulesFromYAML(nodes []yaml.Node, whose string, own []detect.Pattern) ([]Rule, error) {
	rules := make([]Rule, 0, len(nodes))
	for i := range nodes {
		rule, err := ruleFromYAML(&nodes[i])
		if err == nil {
			err = known(&rule, own)
		}
		if rule.ID == "" {
			rule.ID = fmt.Sprintf("%s/%d", whose, i+1)
		}
		if err == nil {
			err = rule.validate()
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", nodes[i].Line, err)
		}
		rules = append(rules, rule)
	}
	seen := make(map[string]bool, len(rules))
	for i := range rules {
		if seen[rules[i].ID] {
			return nil, fmt.Errorf("line %d: the id %s is given twice", nodes[i].Line, rules[i].ID)
		}
		seen[rules[i].ID] = true
	}
	return rules, validateRules(rules)
}

// known says whether every set that a rule names is built in or defined.
func known(r *Rule, own []detect.Pattern) error {
	for _, name := range detect.Own(r.Action.Sets) {
		if !slices.ContainsFunc(own, func(p detect.Pattern) bool { return p.Name == name }) {
			return fmt.Errorf("nothing defines the set %s", name)
		}
	}
	return nil
}

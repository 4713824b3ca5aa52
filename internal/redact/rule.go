// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyhole-dev/keyhole/internal/glob"
)

// A Rule gives fields an action. The ID stands in every event whose value the rule decided.
type Rule struct {
	ID     string `json:"id"`
	Match  Match  `json:"match"`
	Action Action `json:"action"`
}

// A Match names fields: all of its patterns that are not empty must match. `*` stands for any run of characters and `?`
// for one. Name and Path do not distinguish upper from lower case.
type Match struct {
	Name     string `json:"name,omitempty"`     // of the field itself: the last name on its path
	Path     string `json:"path,omitempty"`     // the whole path: c.user.*
	Type     string `json:"type,omitempty"`     // the type's name as the program's debug information has it
	Function string `json:"function,omitempty"` // as the linker knows it: main.(*Cart).*
	// Executable is that of the process, as /proc/PID/exe names it; Workload what runs it, such as unit/shop.service or container/ID.
	Executable string `json:"executable,omitempty"`
	Workload   string `json:"workload,omitempty"`
}

// Bounds of a rule file.
const (
	MaxRules        = 1000
	maxPatternBytes = 512
)

var validID = regexp.MustCompile(`^[a-z0-9][a-z0-9._/-]{0,63}$`)

// reserved begin the IDs of the shipped rules and the one of a request.
var reserved = []string{"names/", "default/", "strict/", "kernel/", "request"}

func ruleFromYAML(node *yaml.Node) (Rule, error) {
	var rule Rule
	if node.Kind != yaml.MappingNode {
		return rule, errors.New("want a rule: {name: card, action: drop}")
	}
	var action string
	keys := map[string]*string{
		"id": &rule.ID, "name": &rule.Match.Name, "path": &rule.Match.Path, "type": &rule.Match.Type,
		"function": &rule.Match.Function, "executable": &rule.Match.Executable, "workload": &rule.Match.Workload, "action": &action,
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i].Value, node.Content[i+1]
		target, known := keys[key]
		if !known {
			return rule, fmt.Errorf("unknown key %.32q; a rule has id, name, path, type, function, executable, workload and action", key)
		}
		if seen[key] {
			return rule, fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		if value.Kind != yaml.ScalarNode || value.Value == "" {
			return rule, fmt.Errorf("%s: want a text", key)
		}
		*target = value.Value
	}
	if action == "" {
		return rule, errors.New("no action: a rule says what becomes of the fields it names")
	}
	var err error
	rule.Action, err = ParseAction(action)
	return rule, err
}

// validateRules bounds rules from wherever they came. Rules from several hands may have the same ID.
func validateRules(rules []Rule) error {
	if len(rules) > MaxRules {
		return fmt.Errorf("%d rules; at most %d", len(rules), MaxRules)
	}
	for i, r := range rules {
		if err := r.validate(); err != nil {
			return fmt.Errorf("rule %d (%.64s): %w", i+1, r.ID, err)
		}
	}
	return nil
}

func (r *Rule) validate() error {
	if !validID.MatchString(r.ID) {
		return fmt.Errorf("id %.80q: want lower-case letters, digits and . _ / -, at most 64", r.ID)
	}
	for _, prefix := range reserved {
		if strings.HasPrefix(r.ID, prefix) {
			return fmt.Errorf("id %s: %s is for rules that are built in", r.ID, prefix)
		}
	}
	if r.Match == (Match{}) {
		return errors.New("names no field: give name, path, type, function, executable or workload")
	}
	for _, pattern := range []string{r.Match.Name, r.Match.Path, r.Match.Type, r.Match.Function, r.Match.Executable, r.Match.Workload} {
		if len(pattern) > maxPatternBytes {
			return fmt.Errorf("a pattern of %d bytes; at most %d", len(pattern), maxPatternBytes)
		}
	}
	if _, err := ParseAction(r.Action.String()); err != nil || r.Action.Kind == 0 {
		return errors.New("has no action")
	}
	return nil
}

// matches says how a rule speaks of a field: of the field itself, or of something that the field lies in.
func (m *Match) matches(f *Field) (itself, around bool) {
	if !patternMatches(m.Function, f.Function) || !patternMatches(m.Executable, f.Executable) {
		return false, false
	}
	if m.Workload != "" {
		if f.Workload == "" {
			// It may be the one that the rule speaks of: what the rule makes stricter holds, what it makes weaker does not.
			itself, around = m.field(f)
			return false, itself || around
		}
		if !glob.Match(m.Workload, f.Workload) {
			return false, false
		}
	}
	return m.field(f)
}

// field says how a rule speaks of a field, wherever it is.
func (m *Match) field(f *Field) (itself, around bool) {
	if patternMatches(strings.ToLower(m.Path), strings.ToLower(f.Path)) && m.names(f.Names, f.TypeName) {
		return true, false
	}
	for _, w := range f.ways() {
		for i := len(w.names); i > 0; i-- {
			typeName := w.types[i-1]
			if i == len(w.names) {
				typeName = f.TypeName
			}
			if patternMatches(strings.ToLower(m.Path), strings.ToLower(strings.Join(w.names[:i], "."))) && m.names(w.names[:i], typeName) {
				if i == len(w.names) {
					return true, false
				}
				around = true
			}
		}
	}
	return false, around
}

// names says whether the rule's name and type are those of what these names lead to. A pointer is also what it points to.
func (m *Match) names(names []string, typeName string) bool {
	return (m.Name == "" || len(names) > 0 && patternMatches(strings.ToLower(m.Name), strings.ToLower(names[len(names)-1]))) &&
		(patternMatches(m.Type, typeName) || patternMatches(m.Type, strings.TrimLeft(typeName, "*")))
}

// spellsOut says whether a rule names the field without a wildcard, whatever it says of the way there.
func (m *Match) spellsOut() bool {
	last := m.Name
	if last == "" {
		last = m.Path[strings.LastIndexByte(m.Path, '.')+1:]
	}
	return last != "" && !strings.ContainsAny(last, "*?")
}

// patternMatches treats the empty pattern as saying nothing.
func patternMatches(pattern, s string) bool { return pattern == "" || glob.Match(pattern, s) }

// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/strictyaml"
)

// A Sample is a value that rules are tried on, without a program.
type Sample struct {
	Path       string  `yaml:"path" json:"path"`                       // user.email
	Type       string  `yaml:"type" json:"type"`                       // as the program has it: string, int64, time.Duration
	Kind       string  `yaml:"kind" json:"kind"`                       // string, cstring, bytes, int, uint, bool, float, length, pointer; by the type, if empty
	Value      string  `yaml:"value" json:"value"`                     // as text
	Function   string  `yaml:"function" json:"function,omitempty"`     // that it is an argument or result of
	Executable string  `yaml:"executable" json:"executable,omitempty"` // of the process
	Workload   string  `yaml:"workload" json:"workload,omitempty"`     // that the process belongs to
	Want       string  `yaml:"want" json:"want,omitempty"`             // the action that must come out; empty: any
	WantRule   string  `yaml:"rule" json:"wantRule,omitempty"`         // the rule that must decide; empty: any
	WantLeaves *string `yaml:"leaves" json:"wantLeaves,omitempty"`     // what must leave; nil: anything
}

// An Outcome is what becomes of a sample.
type Outcome struct {
	Sample
	Action string `json:"action"`
	Rule   string `json:"rule"`
	Note   string `json:"note,omitempty"`
	Leaves string `json:"leaves"`          // what leaves of the value, as text; of a digest only that it is one
	Wrong  string `json:"wrong,omitempty"` // in which way it is not what was wanted
}

// MaxSamples is how many samples one file may have.
const MaxSamples = 10_000

// ParseSamples reads a YAML file of samples with what must become of them, such as
//
//	version: 1
//	tests:
//	  - {path: user.email, value: ana@example.org, want: "prefix:3", leaves: ana}
//	  - {path: total, type: int64, value: 4200000000, want: keep}
//
// Unknown keys are errors, and errors name the line.
func ParseSamples(data []byte) ([]Sample, error) {
	var file struct {
		Version int      `yaml:"version"`
		Tests   []Sample `yaml:"tests"`
	}
	if err := strictyaml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != 1 {
		return nil, fmt.Errorf("version is %d; this program reads version 1", file.Version)
	}
	if len(file.Tests) == 0 || len(file.Tests) > MaxSamples {
		return nil, fmt.Errorf("%d tests; want 1 to %d", len(file.Tests), MaxSamples)
	}
	for i := range file.Tests {
		if err := file.Tests[i].complete(); err != nil {
			return nil, fmt.Errorf("test %d: %w", i+1, err)
		}
	}
	return file.Tests, nil
}

// ParseSample reads PATH=VALUE or PATH:TYPE=VALUE.
func ParseSample(text string) (Sample, error) {
	field, value, ok := strings.Cut(text, "=")
	if !ok || field == "" {
		return Sample{}, fmt.Errorf("%.64q: want PATH=VALUE or PATH:TYPE=VALUE, such as user.email=ana@example.org or total:int64=5", text)
	}
	s := Sample{Value: value}
	s.Path, s.Type, _ = strings.Cut(field, ":")
	return s, s.complete()
}

var sampleKinds = []string{"string", "cstring", "bytes", "int", "uint", "bool", "float", "length", "pointer"}

// complete says what a sample leaves open.
func (s *Sample) complete() error {
	if s.Path == "" {
		return errors.New("no path")
	}
	if s.Type == "" {
		s.Type = "string"
		if s.Kind != "" {
			s.Type = s.Kind
		}
	}
	if s.Kind == "" {
		s.Kind = kindOfType(s.Type)
	}
	if !slices.Contains(sampleKinds, s.Kind) {
		return fmt.Errorf("%s: unknown kind %.32q: want one of %s", s.Path, s.Kind, strings.Join(sampleKinds, " "))
	}
	if s.Want != "" {
		if _, err := ParseAction(s.Want); err != nil {
			return fmt.Errorf("%s: want: %w", s.Path, err)
		}
	}
	if s.integer() {
		if _, _, err := s.number(); err != nil {
			return fmt.Errorf("%s: %w", s.Path, err)
		}
	}
	return nil
}

func kindOfType(name string) string {
	switch word := strings.TrimPrefix(name, "const "); {
	case strings.HasPrefix(word, "uint"), strings.HasPrefix(word, "unsigned"), word == "byte", word == "size_t":
		return "uint"
	case strings.HasPrefix(word, "int"), word == "long", word == "short", word == "rune", word == "time.Duration", strings.HasSuffix(word, "time_t"):
		return "int"
	case word == "bool", word == "_Bool":
		return "bool"
	case word == "float", word == "double", strings.HasPrefix(word, "float"):
		return "float"
	case word == "[]byte", word == "[]uint8":
		return "bytes"
	case word == "char *", word == "char*":
		return "cstring"
	case strings.HasPrefix(word, "[]"):
		return "length"
	case strings.HasPrefix(word, "*"), strings.HasSuffix(word, "*"):
		return "pointer"
	}
	return "string"
}

func (s *Sample) integer() bool { return s.Kind == "int" || s.Kind == "uint" || s.Kind == "length" }

// number is a sample's value, as its sign and magnitude.
func (s *Sample) number() (negative bool, magnitude uint64, err error) {
	digits, negative := strings.CutPrefix(s.Value, "-")
	magnitude, err = strconv.ParseUint(digits, 10, 64)
	if err != nil || negative && (s.Kind != "int" || magnitude > 1<<63) || s.Kind == "int" && !negative && magnitude >= 1<<63 {
		return false, 0, fmt.Errorf("%.32q is no %s", s.Value, s.Type)
	}
	return negative, magnitude, nil
}

// size is that of a type of integers; where its name says nothing, 8 bytes.
func (s *Sample) size() int {
	for _, c := range []struct {
		end  string
		size int
	}{{"8", 1}, {"16", 2}, {"32", 4}, {"byte", 1}, {"rune", 4}, {"short", 2}, {"unsigned", 4}} {
		if strings.HasSuffix(s.Type, c.end) {
			return c.size
		}
	}
	return 8
}

// Try says what becomes of a sample.
func (rs *Ruleset) Try(s Sample) (Outcome, error) {
	d := rs.Decide(Field{
		Path: s.Path, Names: strings.Split(s.Path, "."), TypeName: s.Type, Kind: s.Kind, Size: s.size(), Function: s.Function, Executable: s.Executable, Workload: s.Workload,
	})
	o := Outcome{Sample: s, Action: d.Action.String(), Rule: d.Rule, Note: d.Note}
	var err error
	if o.Leaves, err = rs.leaves(d.Action, &s); err != nil {
		return Outcome{}, err
	}
	var wrong []string
	if s.Want != "" && s.Want != o.Action {
		wrong = append(wrong, "want "+s.Want)
	}
	if s.WantRule != "" && s.WantRule != o.Rule {
		wrong = append(wrong, "by "+s.WantRule)
	}
	if s.WantLeaves != nil && *s.WantLeaves != o.Leaves {
		wrong = append(wrong, fmt.Sprintf("leaving %q", *s.WantLeaves))
	}
	o.Wrong = strings.Join(wrong, ", ")
	return o, nil
}

// leaves is what the kernel lets out of a value.
func (rs *Ruleset) leaves(a Action, s *Sample) (string, error) {
	text := s.Value
	switch a.Kind {
	case Keep:
		return text, nil
	case Prefix:
		if a.N >= len(text) {
			return "", nil
		}
		return text[:a.N], nil
	case Suffix:
		if a.N >= len(text) {
			return "", nil
		}
		return text[len(text)-a.N:], nil
	case Bucket:
		negative, magnitude, err := s.number()
		if err != nil {
			return "", err
		}
		text = strconv.FormatUint(a.Bucketed(magnitude), 10)
		if negative {
			text = "-" + text
		}
		return text, nil
	case Detect, Allow:
		library, err := detect.NewLibrary(rs.Patterns())
		if err != nil {
			return "", err
		}
		machines, err := library.Machines(a.Sets)
		if err != nil {
			return "", err
		}
		if a.Kind == Detect {
			return string(dfa.Overwrite([]byte(text), false, machines...)), nil
		}
		if slices.ContainsFunc(machines, func(m *dfa.Machine) bool { return m.Whole([]byte(text)) }) {
			return text, nil
		}
		return "", nil
	case Length:
		return strconv.Itoa(len(text)), nil
	case Digest:
		return "(digest)", nil
	default:
		return "", nil
	}
}

// Warnings are rules that cannot mean what they say: their action is weaker than what stands there in any case.
func (p *Policy) Warnings() []string {
	var list []string
	for _, r := range p.Rules {
		name := r.Match.Name
		if name == "" {
			name = r.Match.Path[strings.LastIndexByte(r.Match.Path, '.')+1:]
		}
		if r.Match.spellsOut() && r.Action.Kind != Drop && secrets.means(name) {
			list = append(list, fmt.Sprintf("rule %s: %s means a secret and is dropped, whatever a rule says", r.ID, name))
		}
	}
	return list
}

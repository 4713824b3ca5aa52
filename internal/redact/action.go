// SPDX-License-Identifier: Apache-2.0

// Package redact decides as what a value leaves the kernel: whole, in part, as a digest, as its length, or not at all.
// It knows rules and names, and nothing of how the kernel carries a decision out.
package redact

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/detect"
)

// A Kind is what an Action does, from the weakest to the strictest but for Detect, Prefix and Suffix, of which none is stricter.
type Kind uint8

// The kinds of action.
const (
	Keep   Kind = iota + 1 // the value
	Detect                 // the value, what Sets find in it overwritten
	Prefix                 // its first N bytes; nothing of a value that has no more
	Suffix                 // its last N bytes; nothing of a value that has no more
	Digest                 // a keyed hash of it: equal values have equal digests within one attachment
	Length                 // its length in bytes
	Drop                   // nothing: it is not even read
)

var kindNames = map[Kind]string{Keep: "keep", Detect: "detect", Prefix: "prefix", Suffix: "suffix", Digest: "digest", Length: "length", Drop: "drop"}

// MaxPart is the largest N of Prefix and Suffix.
const MaxPart = 64

// An Action is what becomes of a value. The zero Action is not valid; it is treated as Drop where a value has to be
// decided on.
type Action struct {
	Kind Kind
	N    int    // bytes, 1 to MaxPart; of Prefix and Suffix only
	Sets string // as detect.Parse writes them; of Detect only
}

// ParseAction reads keep, drop, length, digest, suffix:N, prefix:N or detect:SET,…
func ParseAction(text string) (Action, error) {
	name, number, hasNumber := strings.Cut(text, ":")
	for kind, known := range kindNames {
		if name != known {
			continue
		}
		if kind == Detect {
			sets, err := detect.Parse(number)
			if err != nil {
				return Action{}, fmt.Errorf("action %.64q: %w", text, err)
			}
			return Action{Kind: Detect, Sets: sets}, nil
		}
		if kind != Prefix && kind != Suffix {
			if hasNumber {
				return Action{}, fmt.Errorf("action %q: %s takes no number", text, name)
			}
			return Action{Kind: kind}, nil
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 || n > MaxPart || number[0] == '0' {
			return Action{}, fmt.Errorf("action %.32q: want a number of bytes, %s:1 to %s:%d", text, name, name, MaxPart)
		}
		return Action{Kind: kind, N: int(n)}, nil
	}
	return Action{}, fmt.Errorf("unknown action %.32q: want keep, drop, length, digest, suffix:N, prefix:N or detect:SET,…", text)
}

// String is the action as ParseAction reads it.
func (a Action) String() string {
	name, ok := kindNames[a.Kind]
	if !ok {
		return "drop"
	}
	if a.Kind == Detect {
		return name + ":" + a.Sets
	}
	if a.Kind == Prefix || a.Kind == Suffix {
		return name + ":" + strconv.Itoa(a.N)
	}
	return name
}

// Stricter returns the weakest action that tells no more than either of two. Of two parts from the same end it is the
// shorter one, of two detections that of the sets of both; a prefix, a suffix and a detection have only the digest below two of them.
func Stricter(a, b Action) Action {
	if a.Kind == 0 || b.Kind == 0 {
		return Action{Kind: Drop}
	}
	if a.Kind > b.Kind {
		a, b = b, a
	}
	switch {
	case a.Kind == Detect && b.Kind == Detect:
		return Action{Kind: Detect, Sets: detect.Union(a.Sets, b.Sets)}
	case a.Kind == b.Kind:
		return Action{Kind: a.Kind, N: min(a.N, b.N)}
	case a.Kind != Keep && b.Kind < Digest:
		return Action{Kind: Digest}
	default:
		return b
	}
}

// For returns the action that a value of this kind can have: the action itself, or drop where it means nothing for such
// a value. Parts, lengths and patterns are for strings and bytes; everything else has one size and no ends.
func (a Action) For(kind string) Action {
	switch a.Kind {
	case Keep, Digest:
		return a
	case Detect, Prefix, Suffix, Length:
		if kind == "string" || kind == "cstring" || kind == "bytes" {
			return a
		}
	}
	return Action{Kind: Drop}
}

// MarshalJSON writes the text that ParseAction reads.
func (a Action) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Action) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("action: want a string: %w", err)
	}
	parsed, err := ParseAction(text)
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// UnmarshalText reads what ParseAction reads; for YAML.
func (a *Action) UnmarshalText(text []byte) error {
	parsed, err := ParseAction(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package redact decides as what a value leaves the kernel: whole, in part, as a digest, as its length, or not at all.
// It knows rules and names, and nothing of how the kernel carries a decision out.
package redact

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/detect"
)

// A Kind is what an Action does, from the weakest to the strictest but for those from Detect to Allow, of which none is
// stricter than another.
type Kind uint8

// The kinds of action.
const (
	Keep   Kind = iota + 1 // the value
	Detect                 // the value, what Sets find in it overwritten
	Bucket                 // a number's power of two, if its magnitude is N or more
	Prefix                 // its first N bytes; nothing of a value that has no more
	Suffix                 // its last N bytes; nothing of a value that has no more
	Allow                  // the value, if the whole of it is what one of Sets finds; else nothing
	Digest                 // a keyed hash of it: equal values have equal digests within one attachment
	Length                 // its length in bytes
	Drop                   // nothing: it is not even read
)

var kindNames = map[Kind]string{
	Keep: "keep", Detect: "detect", Bucket: "bucket", Prefix: "prefix", Suffix: "suffix", Allow: "allow", Digest: "digest", Length: "length", Drop: "drop",
}

// Limits of N.
const (
	MaxPart   = 64        // bytes, of Prefix and Suffix
	MaxBucket = 1<<31 - 1 // of Bucket
)

// An Action is what becomes of a value. The zero Action is not valid; it is treated as Drop where a value has to be
// decided on.
type Action struct {
	Kind Kind
	N    int    // of Prefix and Suffix, 1 to MaxPart; of Bucket the least magnitude, 0 for all
	Sets string // as detect.Parse writes them; of Detect and Allow
}

const wantAction = "want keep, drop, length, digest, suffix:N, prefix:N, bucket, bucket:N, detect:SET,… or allow:SET,…"

// ParseAction reads keep, drop, length, digest, suffix:N, prefix:N, bucket, bucket:N, detect:SET,… or allow:SET,…
func ParseAction(text string) (Action, error) {
	name, argument, hasArgument := strings.Cut(text, ":")
	for kind, known := range kindNames {
		if name != known {
			continue
		}
		switch kind {
		case Detect, Allow:
			sets, err := detect.Parse(argument)
			if err != nil {
				return Action{}, fmt.Errorf("action %.80q: %w", text, err)
			}
			if kind == Allow && sets == detect.All {
				return Action{}, fmt.Errorf("action %q: name the sets of which the whole of a value may be", text)
			}
			return Action{Kind: kind, Sets: sets}, nil
		case Prefix, Suffix:
			n, err := number(argument, MaxPart)
			if err != nil {
				return Action{}, fmt.Errorf("action %.32q: want a number of bytes, %s:1 to %s:%d", text, name, name, MaxPart)
			}
			return Action{Kind: kind, N: n}, nil
		case Bucket:
			if !hasArgument {
				return Action{Kind: kind}, nil
			}
			n, err := number(argument, MaxBucket)
			if err != nil {
				return Action{}, fmt.Errorf("action %.32q: want the least magnitude, bucket:1 to bucket:%d, or bucket for all", text, MaxBucket)
			}
			return Action{Kind: kind, N: n}, nil
		default:
			if hasArgument {
				return Action{}, fmt.Errorf("action %.32q: %s takes no number", text, name)
			}
			return Action{Kind: kind}, nil
		}
	}
	return Action{}, fmt.Errorf("unknown action %.32q: %s", text, wantAction)
}

// number reads 1 to most in the one way in which it is written.
func number(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("%.32q is not a number from 1 to %d", text, most)
	}
	return n, nil
}

// String is the action as ParseAction reads it.
func (a Action) String() string {
	name, ok := kindNames[a.Kind]
	switch {
	case !ok:
		return "drop"
	case a.Kind == Detect || a.Kind == Allow:
		return name + ":" + a.Sets
	case a.Kind == Prefix || a.Kind == Suffix || a.Kind == Bucket && a.N > 0:
		return name + ":" + strconv.Itoa(a.N)
	}
	return name
}

// Stricter returns the weakest action that tells no more than either of two. Of two parts from the same end it is the shorter one, of two
// detections that of the sets of both, of two buckets the one that begins lower. Different ones of the kinds of which none is
// stricter have only the digest below them, and so have the allowances of different sets.
func Stricter(a, b Action) Action {
	if a.Kind == 0 || b.Kind == 0 {
		return Action{Kind: Drop}
	}
	if a.Kind > b.Kind {
		a, b = b, a
	}
	switch {
	case a == b:
		return a
	case a.Kind == Detect && b.Kind == Detect:
		return Action{Kind: Detect, Sets: detect.Union(a.Sets, b.Sets)}
	case a.Kind == b.Kind && a.Kind != Allow:
		return Action{Kind: a.Kind, N: min(a.N, b.N)}
	case a.Kind != Keep && b.Kind < Digest:
		return Action{Kind: Digest}
	default:
		return b
	}
}

// For returns the action that a value of this kind can have: the action itself, or drop where it means nothing for such
// a value. Parts, lengths and patterns are for strings and bytes, buckets for integers; everything else has one size and no ends.
func (a Action) For(kind string) Action {
	switch a.Kind {
	case Keep, Digest:
		return a
	case Bucket:
		if kind == "int" || kind == "uint" || kind == "length" {
			return a
		}
	case Detect, Prefix, Suffix, Allow, Length:
		if kind == "string" || kind == "cstring" || kind == "bytes" {
			return a
		}
	}
	return Action{Kind: Drop}
}

// Bucketed is the magnitude that leaves, under Bucket, of an integer of this one: the power of two at or below it.
func (a Action) Bucketed(magnitude uint64) uint64 {
	if magnitude == 0 || magnitude < uint64(a.N) {
		return magnitude
	}
	return 1 << (bits.Len64(magnitude) - 1)
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

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// leaves is what the program is to let out of a string, said in Go.
func leaves(a redact.Action, key [2]uint64, text string, limit int, terminated bool) string {
	kept, mark := text[:min(len(text), limit)], ""
	if len(text) > limit {
		mark = "…"
	}
	part := a.N
	if part >= len(kept) {
		part = 0 // it would be all of it
	}
	switch a.Kind {
	case redact.Prefix:
		return kept[:part] + mark
	case redact.Suffix:
		if mark != "" {
			return mark // its end was not read
		}
		return kept[len(kept)-part:]
	case redact.Digest:
		return fmt.Sprintf("%016x", sipHash(key, []byte(kept))) + mark
	case redact.Length:
		if terminated { // counted by the kernel, as far as it reads
			return strconv.Itoa(len(kept)) + mark
		}
		return strconv.Itoa(len(text))
	case redact.Drop:
		return "<redacted>"
	default:
		return kept + mark
	}
}

// TestRandomStrings compares what leaves the kernel with what leaves says, for random actions, limits and strings.
func TestRandomStrings(t *testing.T) {
	p := startHot(t)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	kinds := []redact.Kind{redact.Keep, redact.Prefix, redact.Suffix, redact.Digest, redact.Length, redact.Drop}
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + random.IntN('~'-'!'))
		}
		return string(b)
	}
	for round := range testkit.Scale(40) {
		action := redact.Action{Kind: kinds[random.IntN(len(kinds))]}
		if action.Kind == redact.Prefix || action.Kind == redact.Suffix {
			action.N = 1 + random.IntN(redact.MaxPart)
		}
		limit := 1 + random.IntN(100)
		r := request{function: "hot_text", values: text(), redact: action.String(), limits: probe.Limits{ValueBytes: uint32(limit)}}
		terminated := random.IntN(2) == 0
		if !terminated {
			r.function, r.values = "hot_pair", hot.Pair()[1:]
		}
		s := attach(t, p, r)
		var want []string
		for range 8 {
			value := letters(1 + random.IntN(limit+10))
			if terminated {
				p.Do(t, "text 1 %s", value)
			} else {
				p.Do(t, "pair 1 0 %s", value)
			}
			want = append(want, leaves(action, s.key(t), value, limit, terminated))
		}
		events := s.events(t)
		if len(events) != len(want) {
			t.Fatalf("seed %d, round %d: %d events of %d", seed, round, len(events), len(want))
		}
		for i := range events {
			if v := events[i].Arguments[0]; show(v) != want[i] {
				t.Errorf("seed %d, round %d: %s of %d bytes in %s: %q, want %q", seed, round, action, limit, r.function, show(v), want[i])
			}
		}
		s.requireScratchZero(t)
		s.Close()
	}
}

// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"bytes"
	"math/rand/v2"
	"os"
	"regexp"
	"regexp/syntax"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// A subject is a pattern and its machine.
type subject struct {
	pattern string
	parsed  *syntax.Regexp
	longest *regexp.Regexp // what Go finds
	whole   *regexp.Regexp
	machine *dfa.Machine
}

// draw makes a random pattern of which there is a machine.
func draw(t *testing.T, r *rand.Rand) subject {
	t.Helper()
	for {
		s := subject{pattern: pattern(r, 4)}
		var err error
		if s.longest, err = regexp.Compile(s.pattern); err != nil {
			t.Fatalf("%q: %v", s.pattern, err)
		}
		s.longest.Longest()
		s.whole = regexp.MustCompile(`\A(?:` + s.pattern + `)\z`)
		if s.parsed, err = syntax.Parse(s.pattern, syntax.Perl); err != nil {
			t.Fatal(err)
		}
		if s.machine, err = dfa.Compile(s.pattern, dfa.NoCheck); err == nil {
			return s
		}
	}
}

// jobs are values for a pattern: most as they are, some as the beginnings of longer ones, some to be matched as a whole.
func (s *subject) jobs(r *rand.Rand, n int) []job {
	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = job{value: value(r, s.parsed), cut: i%5 == 3, allow: i%5 == 4}
	}
	return jobs
}

// A tally is what was compared.
type tally struct {
	pairs, matched, cut, allowed int
	gaveUp                       int // too many steps: everything is overwritten
}

// check holds what was made of a value against Go's regexp, and against the specification where Go has nothing to say.
func (s *subject) check(t *testing.T, by string, j job, got *Result, n *tally) {
	t.Helper()
	n.pairs++
	if j.allow {
		want := s.whole.Match(j.value)
		if (got.Answer == 1) != want || got.Answer != 0 && got.Answer != 1 || !bytes.Equal(got.Value, j.value) {
			t.Fatalf("%s: %q is all of %q: %d; regexp says %v", by, s.pattern, j.value, got.Answer, want)
		}
		if want {
			n.allowed++
		}
		return
	}
	want := dfa.Overwrite(j.value, j.cut, s.machine)
	if got.Answer != 0 || !bytes.Equal(got.Value, want) {
		t.Fatalf("%s: of %q, cut: %v, %q leaves %q (%d); want %q", by, j.value, j.cut, s.pattern, got.Value, got.Answer, want)
	}
	if j.cut {
		n.cut++
		return
	}
	plain := bytes.Clone(j.value)
	for _, m := range s.longest.FindAllIndex(j.value, -1) {
		for i := m[0]; i < m[1]; i++ {
			plain[i] = dfa.Overwritten
		}
	}
	switch {
	case bytes.Equal(got.Value, plain):
		if !bytes.Equal(plain, j.value) {
			n.matched++
		}
	case bytes.Count(got.Value, []byte{dfa.Overwritten}) == len(got.Value) && len(got.Value) > 1000:
		n.gaveUp++
	default:
		t.Fatalf("%s: of %q, %q leaves %q; regexp leaves %q", by, j.value, s.pattern, got.Value, plain)
	}
}

func (n *tally) enough(t *testing.T, what string, pairs int) {
	t.Helper()
	t.Logf("%s: %d pairs: %d with matches, %d cut, %d allowed, %d given up", what, n.pairs, n.matched, n.cut, n.allowed, n.gaveUp)
	if n.pairs < pairs || n.matched < n.pairs/10 || n.cut < n.pairs/10 || n.allowed < n.pairs/300 || n.gaveUp > n.pairs/1000+1 {
		t.Errorf("%s: too little was compared", what)
	}
}

// TestAgreesWithRegexp: the C in user space, and the program in the kernel, find in random values what Go's regexp finds there.
func TestAgreesWithRegexp(t *testing.T) {
	patterns, perPattern, loads := 1_500, 30, 2
	if os.Getenv("KEYHOLE_LONG") != "" {
		patterns, loads = 40_000, 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	t.Run("user space", func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 1))
		u := startUser(t)
		var n tally
		for range patterns {
			s := draw(t, r)
			jobs := s.jobs(r, perPattern)
			results, err := u.run([]*dfa.Machine{s.machine}, jobs)
			if err != nil {
				t.Fatalf("%q: %v", s.pattern, err)
			}
			for i := range results {
				s.check(t, "user space", jobs[i], &results[i], &n)
			}
		}
		n.enough(t, "user space", patterns*perPattern)
	})
	t.Run("kernel", func(t *testing.T) {
		testkit.RequireRoot(t)
		r := rand.New(rand.NewPCG(seed, 2))
		var n tally
		for range loads {
			subjects := make([]subject, 8)
			machines := make([]*dfa.Machine, len(subjects))
			for i := range subjects {
				subjects[i] = draw(t, r)
				machines[i] = subjects[i].machine
			}
			k, err := Load(machines...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range subjects {
				s := &subjects[i]
				for _, j := range s.jobs(r, 64) {
					what := Detect
					if j.allow {
						what = Allow
					}
					got, err := k.Run(what, j.value, 1<<i, j.cut, 1)
					if err != nil {
						t.Fatal(err)
					}
					s.check(t, "the kernel", j, got, &n)
				}
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
		n.enough(t, "kernel", loads*8*64)
	})
}

// TestGivesUp: a value that takes too many steps is overwritten whole.
func TestGivesUp(t *testing.T) {
	testkit.RequireRoot(t)
	m, err := dfa.Compile(`[A-Z]{60}`, dfa.Mod97)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Load(m)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r := rand.New(rand.NewPCG(3, 4))
	long := make([]byte, MaxValue)
	for i := range long {
		long[i] = byte('A' + r.IntN(26))
	}
	for n, gaveUp := range map[int]bool{1000: false, MaxValue: true} {
		got, err := k.Run(Detect, long[:n], 1, false, 1)
		if err != nil {
			t.Fatal(err)
		}
		if want := dfa.Overwrite(long[:n], false, m); !bytes.Equal(got.Value, want) || got.Answer != 0 {
			t.Errorf("%d bytes: %d, and %d of them are overwritten; want %d", n, got.Answer, bytes.Count(got.Value, []byte("*")), bytes.Count(want, []byte("*")))
		}
		if all := bytes.Count(got.Value, []byte("*")) == n; all != gaveUp {
			t.Errorf("%d bytes: everything is overwritten: %v; want %v", n, all, gaveUp)
		}
	}
}

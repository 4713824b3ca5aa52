// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// groups are the session's, by the text of the value or the reason why there is none.
func (s *session) groups(t *testing.T) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	err := s.Groups(func(key []byte, hits uint64) error {
		v, err := s.decoder.Group(key)
		if v.Truncated {
			v.Value += "..."
		}
		all[v.Value+v.Missing] += hits
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// do sends a command whose answer may be a negative sum.
func do(p *hot.Process, command string) {
	p.Send(command)
	p.Expect("done", time.Minute)
}

// requireNoEvents: what is counted leaves as a number, and as nothing else.
func (s *session) requireNoEvents(t *testing.T) {
	t.Helper()
	if n := len(s.records(t)); n > 0 {
		t.Errorf("%d records", n)
	}
	s.requireScratchZero(t)
}

func TestCount(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()[:1], aggregate: probe.AggregateCount, where: "value == 7"})
	p.Do(t, "pair 1000 7 text")
	p.Do(t, "pair 10 8 text")
	if n := s.counts(t, 1010); n.Emitted != 1000 || n.Filtered != 10 {
		t.Errorf("%+v", n)
	}
	s.requireNoEvents(t)
}

func TestGroups(t *testing.T) {
	p := startHot(t)
	long := strings.Repeat("x", 80)
	for _, c := range []struct {
		name, function string
		value          target.Value
		commands       []string
		calls          int64
		want           map[string]uint64
	}{
		{"a signed number", "hot_pair", hot.Pair()[0], []string{"pair 3 -7 a", "pair 2 7 a", "pair 1 -7 a"}, 6, map[string]uint64{"-7": 4, "7": 2}},
		{"a string", "hot_pair", hot.Pair()[1], []string{"pair 3 1 a", "pair 2 1 ab", "pair 4 1 " + long + "1", "pair 1 1 " + long + "22", "fault", "odd -1"}, 12,
			map[string]uint64{"a": 3, "ab": 2, long[:64] + "...": 5, event.Fault: 1, event.BadLength: 1}},
		{"a C string", "hot_text", text()[0], []string{"text 5 a", "text 1 " + long, "null", "fault"}, 8,
			map[string]uint64{"a": 5, long[:64] + "...": 1, event.NilPointer: 1, event.Fault: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := attach(t, p, request{function: c.function, values: []target.Value{c.value}, aggregate: probe.AggregateGroups})
			for _, command := range c.commands {
				do(p, command)
			}
			if n := s.counts(t, c.calls); n.Emitted != uint64(c.calls) {
				t.Errorf("%+v", n)
			}
			if got := s.groups(t); !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			s.requireNoEvents(t)
		})
	}
}

// TestGroupsAreBounded: values beyond the bound are counted in no group, and in the sum of all.
func TestGroupsAreBounded(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()[:1], aggregate: probe.AggregateGroups})
	const threads, each = 3, 5000 // with the same numbers in each thread, at once
	calls := p.Do(t, "threads %d %d", threads, each)
	n := s.counts(t, calls)
	groups := s.groups(t)
	var sum uint64
	for value, hits := range groups {
		if sum += hits; hits > threads {
			t.Errorf("%s was passed %d times", value, hits)
		}
	}
	if len(groups) != int(bpf.UprobeKhLimitKH_MAX_GROUPS) || n.Emitted != threads*each || sum >= n.Emitted || sum < uint64(len(groups)) {
		t.Errorf("%d groups of %d hits: %+v", len(groups), sum, n)
	}
	s.requireNoEvents(t)
}

// TestHistogram compares the kernel's buckets with the definition of OpenTelemetry's.
func TestHistogram(t *testing.T) {
	p := startHot(t)
	numbers := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 31, 32, 33, 100, 255, 256, 257, 1000, 4711, 65535, 65536, 65537,
		1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1 << 33, 123_456_789_012, 1 << 40, math.MaxInt64, -1, -2, -3, -1000, math.MinInt64, math.MinInt64 + 1}
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()[:1], aggregate: probe.AggregateHistogram})
	want := map[bool]map[int]uint64{false: {}, true: {}}
	var zero uint64
	var sum int64
	for _, n := range numbers {
		do(p, fmt.Sprintf("pair 1 %d x", n))
		if sum += n; n == 0 {
			zero++
			continue
		}
		// In 2^(i/8) < x <= 2^((i+1)/8), of numbers that a float64 holds exactly, or near enough to no bound.
		want[n < 0][int(math.Ceil(math.Log2(math.Abs(float64(n)))*8))-1]++
	}
	s.counts(t, int64(len(numbers)))
	h, err := s.Histogram()
	if err != nil {
		t.Fatal(err)
	}
	for negative, b := range map[bool]event.Buckets{false: h.Positive, true: h.Negative} {
		got := make(map[int]uint64)
		for i, n := range b.Counts {
			if n > 0 {
				got[b.Offset+i] = n
			}
		}
		// 2^31+1 and the like lie above a bound that their logarithm as a float64 is rounded to.
		for _, n := range []int{8 * 31, 8 * 32} {
			if !negative && got[n] == 1 && want[false][n] == 0 {
				got[n]--
				got[n-1]++
				if got[n] == 0 {
					delete(got, n)
				}
			}
		}
		if !maps.Equal(got, want[negative]) {
			t.Errorf("negative %v: got %v, want %v", negative, got, want[negative])
		}
	}
	if h.Zero != zero || h.Sum != sum || h.Scale != 3 || h.Count() != uint64(len(numbers)) || h.Missing != 0 {
		t.Errorf("zero %d, sum %d (want %d), scale %d, %d numbers, %d missing", h.Zero, h.Sum, sum, h.Scale, h.Count(), h.Missing)
	}
	s.requireNoEvents(t)
}

func TestHistogramOfSizes(t *testing.T) {
	p := startHot(t)
	for _, c := range []struct {
		value          target.Value
		first          int  // bucket
		negative, zero bool // where the one number is
	}{
		{hot.Scalar("a", target.KindInt, 1, hot.Argument(0)), -1, true, false},            // -1
		{hot.Scalar("b", target.KindUint, 1, hot.Argument(1)), 61, false, false},          // 200
		{hot.Scalar("c", target.KindInt, 2, hot.Argument(2)), 65, true, false},            // -300
		{hot.Scalar("e", target.KindInt, 4, hot.Argument(4)), 128, true, false},           // -70000
		{hot.Scalar("f", target.KindUint, 8, hot.Argument(5)), 503, false, false},         // 1 << 63
		{hot.Scalar("gone.a", target.KindInt, 8, hot.Argument(0, 0, 0)), 0, false, false}, // behind a pointer that is none
	} {
		t.Run(c.value.Path, func(t *testing.T) {
			s := attach(t, p, request{function: "hot_wide", values: []target.Value{c.value}, aggregate: probe.AggregateHistogram})
			p.Do(t, "wide")
			h, err := s.Histogram()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.value.Path, "gone") {
				if h.Missing != 1 || h.Count() != 0 {
					t.Errorf("%+v", h)
				}
				return
			}
			b, other := h.Positive, h.Negative
			if c.negative {
				b, other = other, b
			}
			if b.Offset != c.first || len(b.Counts) != 1 || len(other.Counts) != 0 || h.Zero != 0 {
				t.Errorf("%+v", h)
			}
		})
	}
}

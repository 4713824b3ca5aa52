// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestConditions asks each question with an answer of yes and of no, of a call whose arguments are known.
func TestConditions(t *testing.T) {
	p := startHot(t)
	wide := []target.Value{ // -1, 200, -300, 60000, -70000, 1 << 63
		hot.Scalar("a", target.KindInt, 1, hot.Argument(0)),
		hot.Scalar("b", target.KindUint, 1, hot.Argument(1)),
		hot.Scalar("c", target.KindInt, 2, hot.Argument(2)),
		hot.Scalar("e", target.KindInt, 4, hot.Argument(4)),
		hot.Scalar("f", target.KindUint, 8, hot.Argument(5)),
	}
	const long = "a-string-of-24-bytes-it-is"
	for _, c := range []struct {
		function, command string
		values            []target.Value
		hold, fail        []string
	}{
		{"hot_wide", "wide", wide,
			[]string{
				"a == -1", "a < 0", "a <= -1", "a >= -1", "a != 1", "b == 200", "b > 199", "c < -299", "c > -301", "e <= -70000", "f > 0",
				"f == 9223372036854775808", "f >= 9223372036854775808", "a == -1 && b == 200 && c == -300 && e == -70000",
			},
			[]string{"a == 127", "a > 0", "b < 200", "b != 200", "c >= 0", "e == 70000", "e > 0", "f < 1", "f == 0", "a == -1 && b == 201"}},
		{"hot_pair", "pair 1 7 " + long, hot.Pair(),
			[]string{`text == "` + long + `"`, `text != "` + long[:25] + `"`, `text != ""`, `value == 7 && text != "x"`},
			[]string{`text != "` + long + `"`, `text == "` + long[:25] + `"`, `text == "` + long + `x"`, `text == "` + long[:25] + `X"`,
				`text == "X` + long[1:] + `"`, `text == ""`, `value == 8 && text == "` + long + `"`}},
		{"hot_text", "text 1 " + long, text(),
			[]string{`text == "` + long + `"`, `text != "` + long[:25] + `"`, `text != ""`},
			[]string{`text != "` + long + `"`, `text == "` + long[:25] + `"`, `text == "` + long + `x"`, `text == "` + long[:25] + `X"`, `text == ""`}},
		{"hot_text", "text 1 8letters", text(), []string{`text == "8letters"`}, []string{`text == "8letter"`, `text == "9letters"`}},
		{"hot_pair", "size 0", hot.Pair(), []string{`text == ""`, `text != "a"`}, []string{`text == "a"`, `text != ""`}},
		// What cannot be read satisfies no condition.
		{"hot_pair", "fault", hot.Pair(), nil, []string{`text == "short"`, `text != "short"`}},
		{"hot_text", "null", text(), nil, []string{`text == ""`, `text != ""`}},
		{"hot_pair", "odd -1", hot.Pair(), nil, []string{`text == "short"`}},
	} {
		for i, where := range append(append([]string(nil), c.hold...), c.fail...) {
			holds := i < len(c.hold)
			if testkit.Emulated() && i != 0 && i != len(c.hold) {
				continue // one that holds, and one that does not
			}
			t.Run(fmt.Sprintf("%s %s %v", c.command, where, holds), func(t *testing.T) {
				s := attach(t, p, request{function: c.function, values: c.values, where: where})
				p.Do(t, "%s", c.command)
				n := s.counts(t, 1)
				if holds != (n.Emitted == 1) || holds == (n.Filtered == 1) {
					t.Errorf("%+v", n)
				}
				if got := len(s.events(t)); got != int(n.Emitted) {
					t.Errorf("%d records", got)
				}
				s.requireScratchZero(t)
			})
		}
	}
}

func TestSample(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", limits: probe.Limits{Sample: 4}})
	const calls = 20_000
	p.Do(t, "pair %d 0 x", calls)
	n := s.counts(t, calls)
	// A binomial of 20,000 and 1/4: mean 5,000, standard deviation 61.
	if n.Emitted < 4600 || n.Emitted > 5400 || n.SampledOut != calls-n.Emitted {
		t.Errorf("%+v", n)
	}
}

func TestRate(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", limits: probe.Limits{Rate: 5}})
	start := time.Now()
	calls := p.Do(t, "run 1000")
	time.Sleep(2500 * time.Millisecond)
	calls += p.Do(t, "halt")
	seconds := time.Since(start).Seconds()
	n := s.counts(t, calls)
	// A second's worth at once, then so many a second.
	if most := uint64(5 + 5*seconds + 1); n.Emitted > most || n.Emitted < 15 || n.Throttled != n.Hits-n.Emitted {
		t.Errorf("%+v within %.2f s; at most %d", n, seconds, most)
	}
	events := s.events(t)
	for i := 6; i < len(events); i++ {
		if d := time.Duration(events[i].BootNs - events[i-1].BootNs); d < 150*time.Millisecond {
			t.Errorf("event %d came %v after the one before", i, d)
		}
	}
}

func TestMaxHits(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", limits: probe.Limits{MaxHits: 100}})
	calls := p.Do(t, "threads 4 2000")
	n := s.counts(t, calls)
	if n.Emitted != 100 || n.OverLimit != n.Hits-100 {
		t.Errorf("%+v", n)
	}
	if got := len(s.events(t)); got != 100 {
		t.Errorf("%d records", got)
	}
}

// TestLostHitsGiveTheirTicketsBack fills the ring before the limit is reached: what was lost does not count against it.
func TestLostHitsGiveTheirTicketsBack(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), limits: probe.Limits{MaxHits: 200}, ring: os.Getpagesize()})
	const calls = 500
	p.Do(t, "pair %d 0 text", calls)
	n := s.counts(t, calls)
	if n.Emitted == 0 || n.Emitted >= 200 || n.Lost != calls-n.Emitted {
		t.Fatalf("%+v", n)
	}
	var read int
	for done := int64(calls); n.Emitted < 200; {
		read += len(s.records(t))
		done += 10
		p.Do(t, "pair 10 0 text")
		if n = s.counts(t, done); done > 2*calls {
			t.Fatalf("%+v", n)
		}
	}
	if read += len(s.records(t)); read != 200 {
		t.Errorf("%d records", read)
	}
}

func TestMaxBytes(t *testing.T) {
	p := startHot(t)
	limit := uint64(10_000)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), limits: probe.Limits{MaxBytes: limit}})
	calls := p.Do(t, "threads 2 1000")
	n := s.counts(t, calls)
	var bytes uint64
	for _, r := range s.records(t) {
		bytes += uint64(len(r))
	}
	if bytes > limit || bytes < limit-200 || n.OverLimit != n.Hits-n.Emitted || n.Emitted == 0 {
		t.Errorf("%d bytes, %+v", bytes, n)
	}
}

// TestFullRing hammers from several threads on all CPUs into a ring of one page that nobody reads.
func TestFullRing(t *testing.T) {
	p := startHot(t)
	for _, action := range []string{"keep", "digest"} {
		s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), redact: action, ring: os.Getpagesize()})
		calls := p.Do(t, "threads 8 10000")
		n := s.counts(t, calls)
		if n.Lost == 0 || n.Emitted == 0 {
			t.Fatalf("%+v", n)
		}
		if err := s.Detach(); err != nil {
			t.Fatal(err)
		}
		p.Do(t, "threads 8 10")
		if after := s.counts(t, calls); !after.Final || after.Emitted != n.Emitted {
			t.Errorf("after the detach %+v", after)
		}
		events := s.events(t)
		if uint64(len(events)) != n.Emitted {
			t.Errorf("%d events of %d", len(events), n.Emitted)
		}
		threads := make(map[int]bool)
		for _, e := range events {
			threads[e.Process.TID] = true
		}
		t.Logf("%s: %+v from %d threads", action, n, len(threads))
		s.requireScratchZero(t)
	}
}

// TestHammer reads while several threads call: what each record says belongs together.
func TestHammer(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()})
	type result struct {
		events []event.Event
		err    error
	}
	stop, results := make(chan struct{}), make(chan result)
	go func() {
		var r result
		for {
			record, err := s.Read(time.Now().Add(10 * time.Millisecond))
			if err == nil {
				var e event.Event
				if e, err = s.decoder.Decode(record); err == nil {
					r.events = append(r.events, e)
					continue
				}
				r.err = err
			}
			select {
			case <-stop:
				results <- r
				return
			default:
			}
		}
	}()
	calls := p.Do(t, "threads 4 %d", testkit.Scale(10_000))
	close(stop)
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	n := s.counts(t, calls)
	if uint64(len(r.events)) != n.Emitted || n.Emitted+n.Lost != uint64(calls) {
		t.Errorf("%d events, %+v", len(r.events), n)
	}
	next := make(map[int]int64) // each thread counts up
	for _, e := range r.events {
		var value int64
		if _, err := fmt.Sscan(e.Arguments[0].Value, &value); err != nil || value < next[e.Process.TID] {
			t.Fatalf("%s after %d in thread %d", e.Arguments[0].Value, next[e.Process.TID], e.Process.TID)
		}
		next[e.Process.TID] = value + 1
		if e.Arguments[1].Value != "sixteen letters." {
			t.Fatalf("%+v", e)
		}
	}
	s.requireScratchZero(t)
}

// TestNoFreeSlot marks every slot of the scratch as claimed, as so many hits that preempt each other would: a hit without
// one is counted as lost, whether it needs the slot for a condition or for its record, and takes no ticket.
func TestNoFreeSlot(t *testing.T) {
	p := startHot(t)
	for _, where := range []string{"", `text == "x"`} {
		s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), where: where, limits: probe.Limits{MaxHits: 2}})
		scratch := s.program.objects.KhScratch
		slot := make([]byte, scratch.ValueSize())
		mark := func(claimed byte) {
			slot[0] = claimed
			for i := range scratch.MaxEntries() {
				if err := scratch.Put(i, slot); err != nil {
					t.Fatal(err)
				}
			}
		}
		mark(1)
		p.Do(t, "pair 10 0 x")
		if n := s.counts(t, 10); n.Lost != 10 {
			t.Errorf("%q: %+v", where, n)
		}
		mark(0)
		p.Do(t, "pair 10 0 x")
		if n := s.counts(t, 20); n.Lost != 10 || n.Emitted != 2 || n.OverLimit != 8 {
			t.Errorf("%q: %+v", where, n)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan/plantest"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// soakActions are those of the processes, one each.
var soakActions = []string{"keep", "detect:all", "digest", "suffix:5", "prefix:5", "length", "allow:ipv4", "keep"}

// TestCrossProcess lets eight processes of one executable, two or more on each processor and all under signals, pass texts of their own byte to the same
// function. No event of one may hold a byte of another's, nor one of a longer text before it.
func TestCrossProcess(t *testing.T) {
	lasts := 20 * time.Second
	if testkit.Emulated() {
		lasts = 5 * time.Second
	}
	if text := os.Getenv("KEYHOLE_SOAK"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	tallies := make([]soakTally, len(soakActions))
	processes := make([]*hot.Process, len(soakActions))
	for i := range processes {
		processes[i] = startHot(t)
	}
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); {
		round := time.Now().Add(min(time.Minute, time.Until(end))) // a session may let out so many bytes and no more
		var group sync.WaitGroup
		var sessions []*session
		for i, action := range soakActions {
			s := attach(t, processes[i], request{function: "hot_pair", values: hot.Pair(), redact: action, limits: probe.Limits{ValueBytes: probe.MaxValueBytes}})
			sessions = append(sessions, s)
			n := &tallies[i]
			n.byte, n.action, n.key = byte('A'+i), action, s.key(t)
			group.Go(func() {
				if err := soak(t, processes[i], s, n, round); err != nil {
					t.Errorf("the process of %c, %s: %v", n.byte, n.action, err)
				}
			})
		}
		group.Wait()
		for _, s := range sessions {
			s.Close()
			s.program.Close()
		}
	}
	all := soakTally{}
	for i := range tallies {
		n := &tallies[i]
		t.Logf("%c, %-10s %7d calls, %7d events, %5d lost, %6d signals", n.byte, n.action, n.calls, n.events, n.lost, n.signals)
		if n.events < n.calls/2 || n.signals < n.calls/100 || n.calls == 0 {
			t.Errorf("%c: too little came of %d calls", n.byte, n.calls)
		}
		all.calls, all.events, all.signals = all.calls+n.calls, all.events+n.events, all.signals+n.signals
	}
	t.Logf("%d calls, %d events, %d signals in %v", all.calls, all.events, all.signals, lasts)
}

type soakTally struct {
	byte                         byte
	action                       string
	key                          [2]uint64
	calls, events, lost, signals int64
}

// soak makes a process call until the end, and holds each event against what it passed.
func soak(t *testing.T, p *hot.Process, s *session, n *soakTally, end time.Time) error {
	const turn = 2_000
	before := *n
	for time.Now().Before(end) {
		called := make(chan int64, 1)
		go func() { called <- p.Do(t, "soak %d %d", n.byte, turn) }()
		for done := false; !done; {
			select {
			case signals := <-called:
				n.calls, n.signals, done = n.calls+turn, n.signals+signals, true
			default:
			}
			for {
				wait := time.Now().Add(5 * time.Millisecond)
				if done {
					wait = time.Now() // what waits, and no more
				}
				record, err := s.Read(wait)
				if err != nil {
					break
				}
				e, err := s.decoder.Decode(record)
				if err != nil {
					return err
				}
				if err := n.check(&e, p.PID()); err != nil {
					return fmt.Errorf("%w: %+v", err, e.Arguments)
				}
				n.events++
			}
		}
	}
	calls, events := n.calls-before.calls, n.events-before.events
	counts := s.counts(t, calls)
	n.lost += int64(counts.Lost)
	if int64(counts.Emitted) != events || events+int64(counts.Lost) != calls {
		return fmt.Errorf("%d events of %d calls: %+v", events, calls, counts)
	}
	return nil
}

// check says what is wrong with an event. The value says how long the text is.
func (n *soakTally) check(e *event.Event, pid int) error {
	value, err := strconv.ParseUint(e.Arguments[0].Value, 10, 64)
	if err != nil {
		return err
	}
	if byte(value) != n.byte || e.Process.PID != pid {
		return errors.New("a value of another process")
	}
	text := strings.Repeat(string(n.byte), int(value>>8))
	want := event.Value{Value: text}
	switch n.action {
	case "digest":
		want.Value = fmt.Sprintf("%016x", plantest.SipHash(n.key, []byte(text)))
	case "length":
		want.Value = strconv.Itoa(len(text))
	case "suffix:5", "prefix:5":
		if want.Value = text[:min(len(text), 5)]; len(text) <= 5 {
			want.Value = ""
		}
	case "allow:ipv4":
		want = event.Value{Missing: event.NotInSet}
	}
	if got := e.Arguments[1]; got.Value != want.Value || got.Missing != want.Missing || got.Truncated {
		return fmt.Errorf("a text of %d bytes came as %d bytes, %q", len(text), len(got.Value), got.Missing)
	}
	return nil
}

// TestSoakSees: the check of the test above finds one byte of another process, and one byte too many.
func TestSoakSees(t *testing.T) {
	n := soakTally{byte: 'A', action: "keep"}
	of := func(value uint64, text string) *event.Event {
		return &event.Event{Process: event.Process{PID: 1}, Arguments: []event.Value{{Value: strconv.FormatUint(value, 10)}, {Value: text}}}
	}
	if err := n.check(of(4<<8|'A', "AAAA"), 1); err != nil {
		t.Errorf("what is right is wrong: %v", err)
	}
	for _, e := range []*event.Event{of(4<<8|'A', "AABA"), of(4<<8|'A', "AAAAA"), of(4<<8|'A', "AAA"), of(4<<8|'B', "BBBB"), of(4<<8|'A', "AAA\x00")} {
		if n.check(e, 1) == nil {
			t.Errorf("%+v passes", e.Arguments)
		}
	}
	if n.check(of(4<<8|'A', "AAAA"), 2) == nil {
		t.Error("another process's event passes")
	}
}

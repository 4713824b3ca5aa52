// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	ids   = []string{"s1", "s2", "s3", "s4", "s5"}
	kinds = []RecordKind{RecordRefused, RecordAboutToAttach, RecordAttached, RecordTripped, RecordDetached}
)

// desire draws one wish of the control plane.
func desire(t *rapid.T, id string) Desire {
	d := Desire{
		SessionID: id,
		Revision:  rapid.Int64Range(1, 3).Draw(t, "revision"),
		Stop:      rapid.IntRange(0, 5).Draw(t, "stop") == 0,
		Watched:   rapid.Bool().Draw(t, "watched"),
	}
	if rapid.IntRange(0, 9).Draw(t, "refused") == 0 {
		d.Refused = problem.New(problem.PermissionDenied, "no proof")
	}
	return d
}

func desiredSet(t *rapid.T) Desired {
	e := Desired{Revision: rapid.Int64Range(1, 4).Draw(t, "set")}
	for _, id := range ids {
		if rapid.IntRange(0, 3).Draw(t, "in the set") > 0 {
			e.Sessions = append(e.Sessions, desire(t, id))
		}
	}
	return e
}

// anyEvent draws an event without asking whether it makes sense now.
func anyEvent(t *rapid.T) Event {
	id := rapid.SampledFrom(ids).Draw(t, "id")
	wrong := problem.New(problem.Internal, "as drawn")
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	return rapid.SampledFrom([]Event{
		Connected{}, desiredSet(t), desiredSet(t), Orphaned{id}, Finished{id, event.EndDeadline}, Prepared{id, "sha256:aa"},
		PrepareFailed{id, wrong}, Recorded{id, kind}, Recorded{id, kind}, RecordFailed{id, kind, wrong}, HolderAttached{id, 7, 1000},
		AttachFailed{id, wrong}, HolderAdmitted{id}, HolderAdmitted{id}, Counted{id, event.Counts{Hits: 3}}, StopRequested{id, event.EndStopped}, DeadlineReached{id},
		HolderEnded{SessionID: id, EndedBy: event.EndMaxHits}, HolderEnded{SessionID: id, EndedBy: event.EndTripped, Problem: wrong},
		HolderEnded{SessionID: id, EndedBy: event.EndHolderLost, Problem: wrong},
	}).Draw(t, "event")
}

// TestAnyOrderOfEvents feeds events that need not fit together to two machines: both do the same, and no promise is broken.
func TestAnyOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, h := New(3), New(3), newHistory()
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			e := anyEvent(t)
			did, again := a.Handle(e), b.Handle(e)
			if x, y := transcript(did), transcript(again); x != y {
				t.Fatalf("after %s one machine did\n%s and its twin\n%s", describe(e), x, y)
			}
			if x, y := fmt.Sprint(states(a)), fmt.Sprint(states(b)); x != y {
				t.Fatalf("after %s one machine is in\n%s and its twin in\n%s", describe(e), x, y)
			}
			if err := h.check(a, e, did); err != nil {
				t.Fatalf("after %s: %v", describe(e), err)
			}
		}
	})
}

func transcript(effects []Effect) string {
	var b strings.Builder
	for _, f := range effects {
		fmt.Fprintln(&b, describe(f))
	}
	return b.String()
}

// A world answers effects as the real one does: each once, in any order, well or badly.
type world struct {
	waiting []Effect        // not answered yet
	holding map[string]bool // a holder lives
	handed  map[string]bool // and its events are taken
}

func (w *world) take(effects []Effect) {
	for _, f := range effects {
		switch f := f.(type) {
		case Prepare, Hold:
			w.waiting = append(w.waiting, f)
		case Record:
			if !f.Aside {
				w.waiting = append(w.waiting, f)
			}
		case Forward:
			w.handed[f.SessionID] = true
		case Discard:
			w.handed[f.SessionID] = true
		}
	}
}

// answer draws one of the answers that are due; nil if none is.
func (w *world) answer(t *rapid.T) Event {
	ended := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !w.holding[id] || !w.handed[id] })
	n := rapid.IntRange(0, max(0, len(w.waiting)+len(ended)-1)).Draw(t, "which")
	well := rapid.IntRange(0, 4).Draw(t, "well") > 0
	wrong := problem.New(problem.Internal, "as drawn")
	if n >= len(w.waiting) {
		if len(ended) == 0 {
			return nil
		}
		id := ended[n-len(w.waiting)]
		w.holding[id] = false
		if well {
			by := rapid.SampledFrom([]string{event.EndDeadline, event.EndTripped}).Draw(t, "by")
			return HolderEnded{SessionID: id, EndedBy: by, Counts: event.Counts{Hits: 9, Final: true}, TextRestored: true}
		}
		return HolderEnded{SessionID: id, EndedBy: event.EndHolderLost, Problem: wrong}
	}
	f := w.waiting[n]
	w.waiting = slices.Delete(w.waiting, n, n+1)
	switch f := f.(type) {
	case Prepare:
		if well {
			return Prepared{f.SessionID, "sha256:aa"}
		}
		return PrepareFailed{f.SessionID, wrong}
	case Record:
		if well {
			return Recorded{f.SessionID, f.Kind}
		}
		return RecordFailed{f.SessionID, f.Kind, wrong}
	case Hold:
		if well {
			w.holding[f.SessionID] = true
			return HolderAttached{f.SessionID, 7, 1000}
		}
		return AttachFailed{f.SessionID, wrong}
	}
	panic("not an effect that is answered")
}

// TestEverySessionEnds lets a world answer, and in between the control plane wish and people stop. Once the agent
// drains and all is answered, every session is over and no holder lives.
func TestEverySessionEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, h := New(3), newHistory()
		w := &world{holding: map[string]bool{}, handed: map[string]bool{}}
		handle := func(e Event) {
			effects := m.Handle(e)
			if err := h.check(m, e, effects); err != nil {
				t.Fatalf("after %s: %v", describe(e), err)
			}
			w.take(effects)
		}
		handle(Orphaned{"s5"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0:
				handle(Connected{})
			case 1:
				handle(desiredSet(t))
			case 2:
				handle(StopRequested{id, event.EndStopped})
			case 3:
				handle(DeadlineReached{id})
			case 4:
				handle(HolderAdmitted{id})
			default:
				if e := w.answer(t); e != nil {
					handle(e)
				}
			}
		}
		handle(Draining{event.EndAgentLost})
		for e := w.answer(t); e != nil; e = w.answer(t) {
			handle(e)
		}
		if live := m.Live(); len(live) > 0 {
			t.Fatalf("sessions %q never ended: %v", live, states(m))
		}
		for id, holds := range w.holding {
			if holds {
				t.Fatalf("the holder of %s still lives", id)
			}
		}
		for id, done := range h.done {
			if done[string(RecordAttached)] > 0 && h.asked[id][string(RecordDetached)] != 1 {
				t.Fatalf("%s: %d `detached` for one `attached`", id, h.asked[id][string(RecordDetached)])
			}
		}
	})
}

// TestInvariantsCatch shows that the promises can be broken: a machine with one of its guards removed does not pass.
func TestInvariantsCatch(t *testing.T) {
	for _, c := range []struct {
		name    string
		effects []Effect
	}{
		{"a holder before `about to attach`", []Effect{Hold{"s1"}}},
		{"events before `attached`", []Effect{Forward{"s1"}}},
		{"two lives", []Effect{Prepare{"s1"}, Prepare{"s1"}}},
		{"`detached` without a beginning", []Effect{Record{SessionID: "s1", Kind: RecordDetached}}},
	} {
		if err := newHistory().check(New(1), Connected{}, c.effects); err == nil {
			t.Errorf("%s: nothing is said against it", c.name)
		}
	}
	m, h := New(1), newHistory()
	for _, s := range []State{Ended, Preparing} {
		m.sessions["s1"] = &Session{ID: "s1", State: s, EndedBy: map[State]string{Ended: event.EndStopped}[s]}
		if err := h.check(m, Connected{}, nil); (err != nil) != (s == Preparing) {
			t.Errorf("a session that is %s: %v", s, err)
		}
	}
}

// TestHandleKnowsEveryEvent reads the sources: an event that no case names would be ignored in silence.
func TestHandleKnowsEveryEvent(t *testing.T) {
	files := token.NewFileSet()
	methods := map[string]bool{}
	declared, err := parser.ParseFile(files, "session.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range declared.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "event" {
			methods[f.Recv.List[0].Type.(*ast.Ident).Name] = true
		}
	}
	if len(methods) != len(eventTypes)+1 { // and Desired
		t.Errorf("there are %d events, and the situations can name %d", len(methods), len(eventTypes)+1)
	}
	handled, err := parser.ParseFile(files, "machine.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(handled, func(n ast.Node) bool {
		if c, ok := n.(*ast.CaseClause); ok {
			for _, e := range c.List {
				if name, ok := e.(*ast.Ident); ok {
					delete(methods, name.Name)
				}
			}
		}
		return true
	})
	for name := range methods {
		t.Errorf("no case handles %s", name)
	}
}

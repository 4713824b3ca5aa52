// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/symbol"
)

const (
	// lookupTime is how long events wait for the names on their stacks: a large executable is read once. It is less than a reader that has
	// detached waits for its agent.
	lookupTime = 3 * time.Second
	// maxLookupFailures is after how many failures in a row a session's stacks stay without names.
	maxLookupFailures = 3
	// maxKnownPlaces is how many addresses of a session are kept with their names.
	maxKnownPlaces = 8192
	// maxStackBytes bounds the text of one event's stack: the names are the target's.
	maxStackBytes = 8 << 10
)

// A symbolizer answers for one executable: a privsep.Symbols.
type symbolizer interface {
	Lookup(ctx context.Context, places []symbol.Place) ([]symbol.Location, error)
	Close() error
}

// stacks puts names on the stacks of one session's events. An inspector knows them, which is started again when it has ended; what it
// has said once is kept.
type stacks struct {
	open       func(ctx context.Context) (symbolizer, error)
	log        *slog.Logger
	executable string // its name, without folders
	isGo       bool   // code that always keeps frame pointers

	symbols  symbolizer // nil: none is there
	known    map[symbol.Place]symbol.Location
	failures int // in a row
}

// newStacks is what names the stacks of a job; nil if it has none.
func (r *runner) newStacks(j *job) *stacks {
	if j.plan.Stack == nil {
		return nil
	}
	return &stacks{
		open:       func(ctx context.Context) (symbolizer, error) { return r.client.Symbols(ctx, j.holder) },
		log:        r.log.With("session", j.id),
		executable: path.Base(j.plan.Identity.Path),
		isGo:       strings.HasPrefix(j.plan.Identity.Language, "go"),
		known:      make(map[symbol.Place]symbol.Location),
	}
}

// prepare starts what reads the executable, before there is anything to look up.
func (s *stacks) prepare(ctx context.Context) {
	if s == nil || s.symbols != nil {
		return
	}
	opened, err := s.open(ctx)
	if err != nil {
		s.failed(err)
		return
	}
	s.symbols = opened
}

func (s *stacks) close() {
	if s != nil && s.symbols != nil {
		s.symbols.Close()
		s.symbols = nil
	}
}

// name puts names on the stacks of events. What is not known in time has none.
func (s *stacks) name(events []event.Event) {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	s.learn(ctx, s.unknown(events))
	for i := range events {
		s.rewrite(&events[i])
	}
}

// unknown are the places in the executable that nothing is known of yet.
func (s *stacks) unknown(events []event.Event) []symbol.Place {
	if len(s.known) > maxKnownPlaces {
		clear(s.known)
	}
	var list []symbol.Place
	seen := make(map[symbol.Place]bool)
	for i := range events {
		for _, f := range events[i].Stack {
			p := symbol.Place{Offset: f.Offset, Return: f.Return}
			if _, known := s.known[p]; f.Module == "" && !known && !seen[p] {
				seen[p] = true
				list = append(list, p)
			}
		}
	}
	return list
}

func (s *stacks) learn(ctx context.Context, places []symbol.Place) {
	for len(places) > 0 && s.failures < maxLookupFailures {
		fresh := s.symbols == nil
		if s.prepare(ctx); s.symbols == nil {
			return
		}
		n := min(len(places), privsep.MaxPlaces)
		answers, err := s.symbols.Lookup(ctx, places[:n])
		if err != nil {
			s.close()
			// One that was there already may have reached the end of its time.
			if fresh || ctx.Err() != nil {
				s.failed(err)
				return
			}
			continue
		}
		s.failures = 0
		for i, l := range answers {
			s.known[places[i]] = l
		}
		places = places[n:]
	}
}

func (s *stacks) failed(err error) {
	s.failures++
	if !errors.Is(err, context.Canceled) {
		s.log.Warn("stacks: addresses have no names", "error", err, "givenUp", s.failures >= maxLookupFailures)
	}
}

// rewrite puts the names that are known on one stack, and ends it where what follows is not proved.
func (s *stacks) rewrite(e *event.Event) {
	raw := e.Stack
	if len(raw) == 0 {
		return
	}
	named := make([]event.Frame, 0, len(raw))
	cut := e.StackCut
	for i, f := range raw {
		more := i < len(raw)-1
		if f.Module != "" {
			named = append(named, f)
			if more {
				cut = event.CutLibrary
			}
			break
		}
		l := s.known[symbol.Place{Offset: f.Offset, Return: f.Return}]
		switch {
		case l.Wrapper:
			continue
		case len(l.Frames) == 0:
			named = append(named, event.Frame{Module: s.executable, Offset: f.Offset})
		case i == 0: // the hit is one of the function, whatever stands at the attach point
			own := l.Frames[len(l.Frames)-1]
			own.Inlined = false
			named = append(named, own)
		default:
			named = append(named, l.Frames...)
		}
		if i > 0 && (l.NoFramePointer || len(l.Frames) == 0 && !s.isGo) {
			cut = event.CutNoFrames
			break
		}
	}
	e.Stack, e.StackCut = shorten(named, cut)
}

// shorten ends a stack whose names are too long.
func shorten(frames []event.Frame, cut string) ([]event.Frame, string) {
	size := 0
	for i, f := range frames {
		if size += len(f.Function) + len(f.File) + len(f.Module); size > maxStackBytes {
			return frames[:i], event.CutLong
		}
	}
	return frames, cut
}

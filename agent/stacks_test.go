// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/symbol"
)

// A book is a symbolizer that knows what is in it.
type book struct {
	locations map[uint64]symbol.Location
	fail      error
	asked     int
	closed    bool
}

func (b *book) Lookup(_ context.Context, places []symbol.Place) ([]symbol.Location, error) {
	if b.closed {
		return nil, errors.New("closed")
	}
	if b.fail != nil {
		return nil, b.fail
	}
	var list []symbol.Location
	for _, p := range places {
		b.asked++
		list = append(list, b.locations[p.Offset])
	}
	return list, nil
}

func (b *book) Close() error {
	b.closed = true
	return nil
}

func stacksOf(language string, books ...*book) (*stacks, *int) {
	opened := new(int)
	return &stacks{
		open: func(context.Context) (symbolizer, error) {
			*opened++
			if *opened > len(books) {
				return nil, errors.New("no more")
			}
			return books[*opened-1], nil
		},
		log: slog.New(slog.DiscardHandler), executable: "shop", isGo: strings.HasPrefix(language, "go"), known: make(map[symbol.Place]symbol.Location),
	}, opened
}

func frame(offset uint64) event.Frame { return event.Frame{Offset: offset, Return: true} }

func names(functions ...string) symbol.Location {
	l := symbol.Location{}
	for i, f := range functions {
		l.Frames = append(l.Frames, event.Frame{Function: f, File: "x.go", Line: i + 1, Inlined: i < len(functions)-1})
	}
	return l
}

// TestStackNames: names where they are known, nothing that is not proved, a reason where a stack is cut.
func TestStackNames(t *testing.T) {
	noFrame := names("hidden")
	noFrame.NoFramePointer = true
	locations := map[uint64]symbol.Location{
		1: names("inner", "probed"), 2: names("a", "b"), 3: {Wrapper: true}, 4: names("main"), 5: noFrame,
	}
	library := event.Frame{Module: "libc.so.6", Offset: 0x29, Return: true}
	site := event.Frame{Offset: 1}
	for name, c := range map[string]struct {
		language string
		stack    []event.Frame
		cut      string
		want     string
	}{
		"all known":             {"go1.26", []event.Frame{site, frame(2), frame(3), frame(4)}, "", "probed x.go:2|a x.go:1 (inlined)|b x.go:2|main x.go:1"},
		"too deep":              {"go1.26", []event.Frame{site, frame(4)}, event.CutDepth, "probed x.go:2|main x.go:1|(" + event.CutDepth + ")"},
		"not known, Go":         {"go1.26", []event.Frame{site, frame(9), frame(4)}, "", "probed x.go:2|shop+0x9|main x.go:1"},
		"not known, C":          {"c", []event.Frame{site, frame(9), frame(4)}, "", "probed x.go:2|shop+0x9|(" + event.CutNoFrames + ")"},
		"no frame pointer":      {"c", []event.Frame{site, frame(5), frame(4)}, event.CutDepth, "probed x.go:2|hidden x.go:1|(" + event.CutNoFrames + ")"},
		"from a library":        {"c", []event.Frame{site, frame(4), library}, "", "probed x.go:2|main x.go:1|libc.so.6+0x29"},
		"through a library":     {"c", []event.Frame{site, library, frame(4)}, "", "probed x.go:2|libc.so.6+0x29|(" + event.CutLibrary + ")"},
		"code of nobody":        {"go1.26", []event.Frame{site, {Module: event.UnknownModule}}, "", "probed x.go:2|unknown"},
		"none was asked for":    {"go1.26", nil, "", ""},
		"no caller can be read": {"c", []event.Frame{site}, "", "probed x.go:2"},
	} {
		s, _ := stacksOf(c.language, &book{locations: locations})
		events := []event.Event{{Stack: c.stack, StackCut: c.cut}}
		s.name(events)
		if got := strings.Join(events[0].StackLines(), "|"); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

// TestStackLookups: what was said once is not asked again, one inspector takes the place of another, and one that fails is not asked for ever.
func TestStackLookups(t *testing.T) {
	first := &book{locations: map[uint64]symbol.Location{1: names("f"), 2: names("g")}}
	second := &book{locations: map[uint64]symbol.Location{3: names("h")}}
	s, opened := stacksOf("go1.26", first, second)
	see := func(offsets ...uint64) []string {
		events := []event.Event{{Stack: []event.Frame{{Offset: offsets[0]}}}}
		for _, o := range offsets[1:] {
			events[0].Stack = append(events[0].Stack, frame(o))
		}
		s.name(events)
		return events[0].StackLines()
	}
	for range 3 {
		if got := see(1, 2); !slices.Equal(got, []string{"f x.go:1", "g x.go:1"}) {
			t.Fatal(got)
		}
	}
	if first.asked != 2 {
		t.Errorf("asked about %d addresses", first.asked)
	}
	first.fail = errors.New("its time is over")
	if got := see(1, 3); !slices.Equal(got, []string{"f x.go:1", "h x.go:1"}) || !first.closed || *opened != 2 {
		t.Errorf("%v with %d inspectors", got, *opened)
	}
	second.fail = errors.New("malformed")
	for range 10 {
		if got := see(1, 7); !slices.Equal(got, []string{"f x.go:1", "shop+0x7"}) {
			t.Fatal(got)
		}
	}
	if *opened != 2+maxLookupFailures {
		t.Errorf("%d inspectors were started", *opened)
	}
}

// TestLongStack: names of any length make no event that is too long.
func TestLongStack(t *testing.T) {
	long := &book{locations: make(map[uint64]symbol.Location)}
	e := event.Event{Stack: []event.Frame{{Offset: 1}}}
	long.locations[1] = names("f")
	for i := range uint64(64) {
		long.locations[i+2] = names(strings.Repeat("x", 500), strings.Repeat("y", 500))
		e.Stack = append(e.Stack, frame(i+2))
	}
	s, _ := stacksOf("go1.26", long)
	events := []event.Event{e}
	s.name(events)
	lines := events[0].StackLines()
	if text := strings.Join(lines, "\n"); len(text) > maxStackBytes+1024 || lines[len(lines)-1] != "("+event.CutLong+")" {
		t.Errorf("%d lines, %d bytes", len(lines), len(text))
	}
}

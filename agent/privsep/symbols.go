// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/symbol"
)

const (
	// maxSymbolising is how many inspectors there are at a time that name what is on stacks. More sessions have addresses.
	maxSymbolising = 16
	// MaxPlaces is how many addresses one question may be about.
	MaxPlaces = 256
	// maxSymbolBytes bounds the text of one answer: the names are the executable's.
	maxSymbolBytes = 1 << 20
)

// symbols starts an inspector that names what is on the stacks of a session: the executable is the one that the session's holder was
// started with, whatever became of the process. It returns the inspector's socket.
func (m *monitor) symbols(holder uint64) (int, error) {
	m.mu.Lock()
	h, ok := m.holds[holder]
	if !ok || !h.spec.Stack {
		m.mu.Unlock()
		return -1, problem.New(problem.FailedPrecondition, "no session that goes on, and asked for stacks, has the holder %d", holder)
	}
	s := h.subject.retain()
	m.mu.Unlock()
	if !m.symbolising.take() {
		s.release()
		return -1, problem.New(problem.ResourceExhausted, "the stacks of %d sessions are being looked up on this node", maxSymbolising)
	}
	socket, err := m.startSymbols(s)
	if err != nil {
		s.release()
		m.symbolising.free()
	}
	return socket, err
}

// startSymbols takes the subject over if it succeeds, and the slot.
func (m *monitor) startSymbols(s *subject) (int, error) {
	about, err := handOver("keyhole-subject", handed{Identity: s.identity, Symbols: true})
	if err != nil {
		return -1, err
	}
	defer unix.Close(about)
	var socket int
	var timer *bootTimer
	err = control(s.exe, func(exe int) (err error) {
		_, socket, err = m.spawn(childSpec{
			by:    m.bare,
			start: start{name: inspectorName, role: roleInspector, files: []int{about, exe}, env: inspectorEnvironment},
			registered: func(_ uint64, c *child) {
				timer, _ = atBootTime(loader.BootNow()+uint64(inspectionLifetime), func() { _ = c.signal(unix.SIGKILL) })
			},
			exited: func(uint64, string) {
				if timer != nil {
					timer.stop()
				}
				s.release()
				m.symbolising.free()
			},
		})
		return err
	})
	return socket, err
}

type located struct {
	Problem   *problem.Error    `json:"problem,omitempty"`
	Locations []symbol.Location `json:"locations,omitempty"`
}

// answerSymbols is what an inspector does that was started for nothing else. It reads the tables before it is asked.
func answerSymbols(agent *conn, exe io.ReaderAt, size int64) error {
	table, openErr := symbol.Open(exe, size)
	for {
		var q question
		if _, err := agent.receive(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("hear from agent: %w", err)
		}
		var answer located
		switch {
		case len(q.Places) == 0 || len(q.Places) > MaxPlaces:
			answer.Problem = problem.New(problem.InvalidArgument, "%d addresses; want 1 to %d", len(q.Places), MaxPlaces)
		case openErr != nil:
			answer.Problem = problem.New(problem.FailedPrecondition, "cannot read the symbols: %v", openErr)
		default:
			answer.Locations = locate(table, q.Places)
		}
		if err := agent.send(answer); err != nil {
			return fmt.Errorf("answer agent: %w", err)
		}
	}
}

func locate(table *symbol.Table, places []symbol.Place) []symbol.Location {
	list := make([]symbol.Location, len(places))
	size := 0
	for i, p := range places {
		l := table.Lookup(p)
		for _, f := range l.Frames {
			size += len(f.Function) + len(f.File)
		}
		if size > maxSymbolBytes {
			break
		}
		list[i] = l
	}
	return list
}

// Symbols names what is on the stacks of one session. Its methods may not be called concurrently.
type Symbols struct{ inspection Inspection }

// Symbols starts a process that can say what addresses in the executable of the holder's session are, two minutes long. The session must have
// asked for stacks, and go on. Close it.
func (c *Client) Symbols(ctx context.Context, h *Holder) (*Symbols, error) {
	a, err := c.call(ctx, request{Symbols: h.id})
	if err != nil {
		return nil, fmt.Errorf("look up symbols: %w", err)
	}
	if a.file == nil {
		return nil, errors.New("look up symbols: the monitor's reply holds no inspector")
	}
	return &Symbols{Inspection{client: c, conn: &conn{file: a.file}}}, nil
}

// Lookup says what is at each of at most MaxPlaces places. After an error there is no other answer.
func (s *Symbols) Lookup(ctx context.Context, places []symbol.Place) ([]symbol.Location, error) {
	var l located
	if err := s.inspection.ask(ctx, question{Places: places}, &l); err != nil {
		return nil, fmt.Errorf("look up symbols: %w", err)
	}
	if l.Problem != nil {
		return nil, fmt.Errorf("look up symbols: %w", l.Problem)
	}
	if len(l.Locations) != len(places) {
		return nil, fmt.Errorf("look up symbols: %d answers for %d addresses", len(l.Locations), len(places))
	}
	return l.Locations, nil
}

// Close ends the process.
func (s *Symbols) Close() error { return s.inspection.Close() }

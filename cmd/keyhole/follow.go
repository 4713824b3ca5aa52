// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// redrawTime is how often the status line changes.
const redrawTime = 500 * time.Millisecond

// A follower shows a session until it ends: each event once as it comes, and below them, on a terminal, one line that
// changes.
type follower struct {
	sh      *shell
	client  *client.Client
	session *keyholev1.Session // as last heard of
	form    output
	owner   bool // started it, so that Ctrl-C ends it

	trace  *view.Trace
	json   *bufio.Writer
	width  int   // of the terminal with the status line; 0: there is none
	drawn  bool  // the status line is on the screen
	broken error // standard output takes nothing any more
	asked  bool  // the session was asked to end
}

func (sh *shell) newFollower(c *client.Client, s *keyholev1.Session, form output) *follower {
	f := &follower{sh: sh, client: c, session: s, form: form, json: bufio.NewWriterSize(sh.stdout, 64<<10)}
	cut := 0
	if form == outputTable && sh.isTerminal(sh.stdout) && sh.isTerminal(sh.stderr) {
		if width, _, err := term.GetSize(int(sh.stdout.Fd())); err == nil && width > 0 {
			f.width, cut = width, width
		}
	}
	f.trace = view.NewTrace(cut)
	return f
}

// interruptions yields one value for each Ctrl-C, and for what ends a terminal or a job. The write to a pipe that nobody reads
// becomes an error instead of the end: a session must not be forgotten.
func interruptions() (<-chan struct{}, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	out := make(chan struct{})
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			select {
			case out <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		signal.Reset(syscall.SIGPIPE)
		close(done)
	}
}

// An update is what the stream yields.
type update struct {
	message *keyholev1.WatchSessionResponse
	err     error
}

// follow shows the session and returns what its end means for who asked for it.
func (f *follower) follow(ctx context.Context, interrupts <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan update, 256)
	go func() {
		defer close(updates)
		for m, err := range f.client.Watch(ctx, f.session.GetId()) {
			select {
			case updates <- update{m, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(redrawTime)
	defer ticker.Stop()
	defer f.erase()
	f.state(f.session)
	for {
		select {
		case u, open := <-updates:
			if !open {
				return ctx.Err()
			}
			if u.err != nil {
				return f.lost(u.err)
			}
			if done, err := f.take(u.message); done || err != nil {
				return err
			}
		case <-interrupts:
			if left, err := f.interrupt(ctx); left || err != nil {
				return err
			}
		case <-ticker.C:
			f.note(f.trace.Quiet(time.Now()))
		}
		if len(updates) > 0 {
			continue // they are shown first, in one go
		}
		f.flush()
		if f.broken != nil && !f.owner {
			return f.outputError()
		}
		if f.broken != nil && !f.asked {
			if err := f.stop(ctx); err != nil {
				return err
			}
		}
		f.draw()
	}
}

// take shows one message and says whether it was the last.
func (f *follower) take(m *keyholev1.WatchSessionResponse) (done bool, err error) {
	switch u := m.GetUpdate().(type) {
	case *keyholev1.WatchSessionResponse_Session:
		f.state(u.Session)
	case *keyholev1.WatchSessionResponse_Event:
		lines := f.trace.Event(u.Event, time.Now())
		if f.form == outputJSON {
			f.write(m)
		} else {
			f.show(lines)
		}
	case *keyholev1.WatchSessionResponse_Aggregate:
		lines := f.trace.Counted(u.Aggregate, time.Now())
		if f.form == outputJSON {
			f.write(m)
		} else {
			f.show(lines)
		}
	case *keyholev1.WatchSessionResponse_Summary:
		err := verdict(f.session, u.Summary.GetEndedBy())
		switch {
		case f.form == outputJSON:
			f.write(m)
		case f.session.GetAttached() != nil || err == nil:
			f.note(f.trace.Summary(u.Summary))
		}
		f.flush()
		if err == nil {
			err = f.outputError()
		}
		return true, err
	}
	return false, nil
}

func (f *follower) state(s *keyholev1.Session) {
	f.session = s
	if lines := f.trace.Session(s, time.Now()); f.form == outputTable {
		f.show(lines)
	}
}

// interrupt ends the session the first time, and leaves it alone the second time. Who only watches stops watching.
func (f *follower) interrupt(ctx context.Context) (left bool, err error) {
	id := f.session.GetId()
	switch {
	case !f.owner:
		return true, nil
	case f.asked:
		f.note([]table.Line{{table.Text(fmt.Sprintf("Left to its deadline: session %s. To end it now: keyhole stop %s", id, id))}})
		return true, nil
	}
	return false, f.stop(ctx)
}

func (f *follower) stop(ctx context.Context) error {
	f.asked = true
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := f.client.Probe.StopSession(ctx, &keyholev1.StopSessionRequest{Which: &keyholev1.StopSessionRequest_SessionId{SessionId: f.session.GetId()}})
	if p := problem.Of(err); p != nil && (p.Code == problem.NotFound || p.Code == problem.FailedPrecondition) {
		return nil // it ended by itself meanwhile; its summary is on the way
	}
	return err
}

// lost says what becomes of a session that cannot be watched any more.
func (f *follower) lost(err error) error {
	away, ok := errors.AsType[*client.Unreachable](err)
	if !ok || f.session.GetState() == keyholev1.SessionState_SESSION_STATE_UNSPECIFIED {
		return err
	}
	id := f.session.GetId()
	return &client.Unreachable{Problem: problem.New(problem.Unavailable, "%s\n  session %s goes on until its deadline without being watched; "+
		"keyhole sessions watch %s shows it again", away.Problem.Message, id, id)}
}

// show writes lines that are data.
func (f *follower) show(lines []table.Line) {
	if len(lines) == 0 || f.broken != nil {
		return
	}
	f.erase()
	f.broken = f.sh.out.Print(lines...)
}

func (f *follower) write(m proto.Message) {
	if f.broken != nil {
		return
	}
	data, err := view.JSON(m)
	if err == nil {
		_, err = f.json.Write(data)
	}
	f.broken = err
}

func (f *follower) flush() {
	if f.broken == nil {
		f.broken = f.json.Flush()
	}
}

// outputError is nil if nobody wants to read any more: that is no fault.
func (f *follower) outputError() error {
	if f.broken == nil || errors.Is(f.broken, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("write events: %w", f.broken)
}

// note writes lines that are about the data.
func (f *follower) note(lines []table.Line) {
	if len(lines) == 0 || f.form != outputTable {
		return
	}
	f.erase()
	// If nobody reads these either there is nobody to tell.
	_ = f.sh.err.Print(lines...)
}

func (f *follower) draw() {
	if f.width == 0 || f.broken != nil {
		return
	}
	if width, _, err := term.GetSize(int(f.sh.stdout.Fd())); err == nil && width > 0 {
		f.width = width
	}
	if status := f.trace.Status(time.Now()); status != nil {
		f.drawn = f.sh.err.Redraw(status, f.width) == nil
	}
}

func (f *follower) erase() {
	if f.drawn {
		_ = f.sh.err.Erase() // a terminal that is gone needs none
		f.drawn = false
	}
}

// writeJSON writes a message as one line.
func (sh *shell) writeJSON(m proto.Message) error {
	data, err := view.JSON(m)
	if err != nil {
		return err
	}
	_, err = sh.stdout.Write(data)
	return err
}

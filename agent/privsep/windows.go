// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// A session that is attached for a part of each second only (--duty) costs its target nothing in between: its links are closed. Only the
// monitor can make new ones, for which it keeps the program, and does so under the same checks as the first time. The
// reader says when: its are the only descriptors of the links, so that its death is the end of the probe as ever.

// pause keeps the windows. A fault of its own ends the session.
func (r *reader) pause() error {
	err := r.keepWindows()
	if err != nil {
		r.end(event.EndHolderLost)
	}
	return err
}

// keepWindows opens and closes the probe until the session ends. When it returns, the reader has every link that there is.
func (r *reader) keepWindows() error {
	duty := r.Plan.Limits.Duty
	if duty == 0 {
		return nil
	}
	select {
	case <-r.captures:
	case <-r.ended:
		return nil
	}
	for {
		begin := time.Now()
		if r.endsWithin(duty.Window()) {
			return nil
		}
		if err := r.records.Pause(); err != nil {
			return err
		}
		if err := r.monitor.send(notice{Paused: true}); err != nil {
			return fmt.Errorf("tell monitor: %w", err)
		}
		if r.endsWithin(time.Until(begin.Add(time.Second))) {
			return nil
		}
		if err := r.monitor.send(notice{Resume: true}); err != nil {
			return fmt.Errorf("tell monitor: %w", err)
		}
		links, ok := <-r.windows // always answered, unless the monitor is gone
		if !ok {
			return nil
		}
		r.records.Resume(links)
	}
}

// endsWithin waits, and says whether the session's end came first.
func (r *reader) endsWithin(d time.Duration) bool {
	select {
	case <-time.After(d):
		return false
	case <-r.ended:
		return true
	}
}

// keepProgram takes what a loader leaves of its program, for a session that is attached again and again.
func (h *hold) keepProgram(files []*os.File) error {
	if h.spec.Limits.Duty == 0 {
		return nil
	}
	if len(files) != 1 {
		closeFiles(files)
		return fmt.Errorf("a holder hands over %d programs", len(files))
	}
	h.program = files[0]
	return nil
}

// paused takes note that no breakpoint is the holder's for now: such as are found when it resumes are others', or its own lie.
func (m *monitor) paused(h *hold) error {
	if h.program == nil {
		return errors.New("a holder pauses that was not asked to")
	}
	h.subject.text.Lock()
	defer h.subject.text.Unlock()
	h.sites = nil
	h.isPaused = true
	return nil
}

// leastCycle is how long a holder takes from one resumption to the next: a second, of which it measures each part itself.
const leastCycle = 900 * time.Millisecond

// resume attaches once more, as if it were the first time, and hands the links over. What speaks against it ends the session.
func (m *monitor) resume(h *hold) error {
	// Each link costs every hit once more, and what waits for a holder that hears nothing keeps others waiting.
	if h.program == nil || !h.isPaused || time.Since(h.resumed) < leastCycle {
		return errors.New("a holder resumes that was not asked to, that did not pause, or too often")
	}
	h.isPaused, h.resumed = false, time.Now()
	links, err := m.attachAgain(h)
	if err != nil {
		return h.conn.send(order{Resumed: true, Stop: event.EndNotResumed, Problem: problem.Of(err)})
	}
	defer closeFiles(links)
	fds := make([]int, len(links))
	for i, l := range links {
		fds[i] = int(l.Fd())
	}
	return h.conn.send(order{Resumed: true}, fds...)
}

func (m *monitor) attachAgain(h *hold) ([]*os.File, error) {
	if err := m.mayAttach(h, h.target); err != nil {
		return nil, err
	}
	links, err := loader.AttachAgain(h.program, h.target, h.subject.exe)
	if err != nil {
		return nil, err
	}
	if err := m.hasAttached(h); err != nil {
		closeFiles(links)
		return nil, err
	}
	return links, nil
}

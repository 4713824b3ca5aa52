// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A HoldRequest asks for one session to be attached.
type HoldRequest struct {
	// Envelope is the signed grant, which monitor and loader judge by themselves.
	Envelope   []byte
	Inspection *Inspection
	// Target is what the inspection resolved the grant's request to.
	Target *target.Target
	// PlanDigest is the digest of the plan that went on record. A loader that compiles another refuses.
	PlanDigest string
}

// A Holder is the agent's view of the process that carries out one session.
type Holder struct {
	id       uint64
	pid      int
	news     *news
	conn     *conn
	attached Attached
	events   chan []event.Event
	admitted chan struct{}
	counted  chan *event.Aggregate
	done     chan struct{} // closed when final and err are set

	mu     sync.Mutex
	counts event.Counts

	final Final
	err   error
}

// Final is how a session ended.
type Final struct {
	// Counts are the last known; Counts.Final says whether they were read after the probe was detached.
	Counts event.Counts
	// EndedBy is the cause, such as event.EndDeadline.
	EndedBy string
	// TextRestored says that the monitor has seen the target's text without this session's breakpoints, or the target gone.
	TextRestored bool
	// Why is what a requester is told of an end that was not asked for; nil if there is nothing to say.
	Why *problem.Error
}

// Hold starts a holder and returns when the probe is attached and the holder has no privilege any more. The Events of
// the Holder must be read until they end. If ctx ends first, nothing stays attached.
func (c *Client) Hold(ctx context.Context, r HoldRequest) (*Holder, error) {
	h, err := c.hold(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	return h, nil
}

func (c *Client) hold(ctx context.Context, r HoldRequest) (*Holder, error) {
	a, err := c.call(ctx, request{Hold: &holdRequest{Inspection: r.Inspection.inspected.ID, Envelope: r.Envelope}})
	if err != nil {
		return nil, err
	}
	if a.reply.Held == nil || a.file == nil {
		return nil, errors.New("the monitor's reply holds no holder")
	}
	h := &Holder{id: a.reply.Held.ID, news: a.news, pid: a.reply.Held.PID, conn: &conn{file: a.file}, events: make(chan []event.Event, 16), admitted: make(chan struct{}), counted: make(chan *event.Aggregate, 1), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, h.conn.close)
	err = h.attach(r)
	if !stop() { // the connection is closed, or about to be
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		h.conn.close()
		e := c.await(a.news.ended)
		if e.Cause != "" {
			err = fmt.Errorf("%w (ended by the monitor: %s)", err, e.Cause)
		}
		return nil, err
	}
	go h.run(func() ended { return c.await(a.news.ended) })
	return h, nil
}

// await waits for the monitor's word that a child has ended. With the monitor gone so is the child.
func (c *Client) await(child chan ended) ended {
	select {
	case e := <-child:
		return e
	case <-c.done:
		return ended{}
	}
}

func (h *Holder) attach(r HoldRequest) error {
	if err := h.conn.send(command{Hold: r.Target, PlanDigest: r.PlanDigest}); err != nil {
		return err
	}
	var first report
	if _, err := h.conn.receive(&first); err != nil {
		return fmt.Errorf("the holder ended before it attached: %w", err)
	}
	if first.Problem != nil {
		return first.Problem
	}
	if first.Attached == nil {
		return errors.New("the holder's first word is not that it has attached")
	}
	h.attached = *first.Attached
	return nil
}

// run takes the holder's reports until it has ended.
func (h *Holder) run(awaitEnd func() ended) {
	defer close(h.done)
	defer close(h.events)
	defer h.conn.close()
	var last *final
	admitted := false
	for last == nil {
		var r report
		if _, err := h.conn.receive(&r); err != nil {
			break
		}
		switch {
		case r.Problem != nil:
			h.err = r.Problem
		case r.Admitted && !admitted:
			admitted = true
			close(h.admitted)
		case r.Aggregate != nil:
			select { // only the newest counts
			case <-h.counted:
			default:
			}
			h.counted <- r.Aggregate
		case len(r.Events) > 0:
			h.events <- r.Events
		case r.Counts != nil:
			h.mu.Lock()
			h.counts = *r.Counts
			h.mu.Unlock()
		case r.Final != nil:
			last = r.Final
		}
	}
	e := awaitEnd()
	h.final = Final{Counts: h.Counts(), EndedBy: event.EndHolderLost, TextRestored: e.TextRestored}
	switch {
	case last != nil:
		h.final.Counts, h.final.EndedBy, h.final.Why = last.Counts, last.EndedBy, last.Why
	case e.Cause != "":
		h.final.EndedBy = e.Cause
	}
}

// PID is the holder's number.
func (h *Holder) PID() int { return h.pid }

// Attached says what was attached.
func (h *Holder) Attached() Attached { return h.attached }

// Admitted is closed when the session has only counted for long enough to see that it fits its budget. No hit before
// that is captured; one that never is admitted ends with event.EndTripped.
func (h *Holder) Admitted() <-chan struct{} { return h.admitted }

// Forked are the target's children that have inherited its breakpoints: none of their calls is an event, and each costs them
// a trap. It is a second old at most.
func (h *Holder) Forked() Forked {
	if f := h.news.forked.Load(); f != nil {
		return *f
	}
	return Forked{}
}

// Counted hands out, each second, what a session has counted that emits no events: the newest. The last is there before Events is
// closed.
func (h *Holder) Counted() <-chan *event.Aggregate { return h.counted }

// Events hands out what was captured, in batches, in the kernel's order. It is closed when the session has ended.
func (h *Holder) Events() <-chan []event.Event { return h.events }

// Counts are the last that the holder told: a few hundred milliseconds old while it is attached.
func (h *Holder) Counts() event.Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Stop asks the holder to detach, for a cause such as event.EndStopped. It does not wait. A holder that has ended already
// ended by another cause.
func (h *Holder) Stop(cause string) {
	if err := h.conn.send(command{Stop: cause}); err != nil {
		h.conn.close() // nothing can be told to it: its end of the stream tells it to end
	}
}

// Wait waits for the session's end and says how it came. An error is the holder's own fault, not the cause of an end.
func (h *Holder) Wait() (Final, error) {
	<-h.done
	return h.final, h.err
}

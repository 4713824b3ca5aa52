// SPDX-License-Identifier: Apache-2.0

package control

import (
	"sync"

	"google.golang.org/protobuf/proto"

	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Bounds of what waits for the stream.
const (
	maxEvents     = 4096    // live copies
	maxEventBytes = 4 << 20 // and their size on the wire
	batchEvents   = 256     // in one message
)

// An outbox holds what waits for the stream, in order: a session's last report comes after its events. Of a session's reports
// only the newest waits, so reports are bounded by the sessions; live copies are bounded and dropped beyond, and counted.
type outbox struct {
	wake chan struct{} // has a token when there may be something

	mu         sync.Mutex
	open       bool
	queue      []*outgoing
	reports    map[string]*outgoing // those in queue
	copies     map[string]*copies
	counts     map[string]*outgoing // those in queue
	events     int                  // in queue
	eventBytes int
}

// outgoing is one message to be. At most one of its parts is set; none: it was superseded.
type outgoing struct {
	report *keyholev1.Session
	counts *keyholev1.Aggregate
	events []*keyholev1.Event
	bytes  int
	answer *keyholev1.Answer
}

// copies counts what became of the live copies of one session.
type copies struct{ delivered, lost uint64 }

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), reports: make(map[string]*outgoing), copies: make(map[string]*copies), counts: make(map[string]*outgoing)}
}

// setOpen says whether a stream is up. When it goes, what only made sense on it goes too: reports stay.
func (o *outbox) setOpen(open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open = open
	if open {
		o.signal()
		return
	}
	kept := o.queue[:0]
	for _, m := range o.queue {
		if m.report != nil {
			kept = append(kept, m)
			continue
		}
		for _, e := range m.events {
			o.copiesOf(e.GetSessionId()).lost++
		}
	}
	clear(o.queue[len(kept):])
	clear(o.counts)
	o.queue, o.events, o.eventBytes = kept, 0, 0
}

// report puts the newest state of a session into the queue, in the place of an older one that still waits; the last report of a
// session goes to the end, behind its events.
func (o *outbox) report(s *keyholev1.Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.signal()
	if m, waits := o.reports[s.GetId()]; waits {
		if s.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
			m.report = s
			return
		}
		m.report = nil
	}
	m := &outgoing{report: s}
	o.queue = append(o.queue, m)
	o.reports[s.GetId()] = m
}

// offer puts live copies of one session's events into the queue, as many as there is room for.
func (o *outbox) offer(events []*keyholev1.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range events {
		size := proto.Size(e)
		if !o.open || o.events == maxEvents || o.eventBytes+size > maxEventBytes {
			o.copiesOf(e.GetSessionId()).lost++
			continue
		}
		last := len(o.queue) - 1
		if last < 0 || len(o.queue[last].events) == 0 || len(o.queue[last].events) == batchEvents {
			o.queue = append(o.queue, &outgoing{})
			last++
		}
		m := o.queue[last]
		m.events = append(m.events, e)
		m.bytes += size
		o.events++
		o.eventBytes += size
	}
	o.signal()
}

// count puts what a session has counted into the queue, in the place of older counts that still wait.
func (o *outbox) count(a *keyholev1.Aggregate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open {
		return // the next ones say more
	}
	if m, waits := o.counts[a.GetSessionId()]; waits {
		m.counts = a
		return
	}
	m := &outgoing{counts: a}
	o.queue = append(o.queue, m)
	o.counts[a.GetSessionId()] = m
	o.signal()
}

// answer puts an answer into the queue if the stream that asked is still up.
func (o *outbox) answer(a *keyholev1.Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open {
		o.queue = append(o.queue, &outgoing{answer: a})
		o.signal()
	}
}

// next takes the first message out of the queue; nil if there is none.
func (o *outbox) next() *keyholev1.ConnectRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 {
		m := o.queue[0]
		o.queue[0] = nil
		o.queue = o.queue[1:]
		switch {
		case m.report != nil:
			delete(o.reports, m.report.GetId())
			if c := o.copies[m.report.GetId()]; c != nil {
				m.report.Summary.Delivered, m.report.Summary.LostToClient = c.delivered, c.lost
			}
			return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Report{Report: &keyholev1.SessionReport{Session: m.report}}}
		case len(m.events) > 0:
			o.events -= len(m.events)
			o.eventBytes -= m.bytes
			for _, e := range m.events {
				o.copiesOf(e.GetSessionId()).delivered++
			}
			return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Events{Events: &keyholev1.EventBatch{Events: m.events}}}
		case m.counts != nil:
			delete(o.counts, m.counts.GetSessionId())
			return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Counts{Counts: m.counts}}
		case m.answer != nil:
			return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Answer{Answer: m.answer}}
		}
	}
	return nil
}

// forget drops the counts of sessions that nobody asks for any more.
func (o *outbox) forget(wanted func(id string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.copies {
		if !wanted(id) {
			delete(o.copies, id)
		}
	}
}

func (o *outbox) copiesOf(id string) *copies {
	c := o.copies[id]
	if c == nil {
		c = &copies{}
		o.copies[id] = c
	}
	return c
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

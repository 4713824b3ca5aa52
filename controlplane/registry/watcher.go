// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// watcherEvents is how many events wait for a slow watcher before it loses some.
const watcherEvents = 1024

// A Watcher gets a bounded live copy of one session. It is for one goroutine.
type Watcher struct {
	registry *Registry
	session  *session
	id       string
	events   chan *keyholev1.Event
	changed  chan struct{}
	counts   *keyholev1.Aggregate // not handed out yet; the registry's lock guards it
	lost     uint64               // the registry's lock guards it
	revision int64
	summary  *keyholev1.Summary // the last that was handed out
}

// Watch begins to watch a session. While anybody watches, its node sends copies of its events.
func (r *Registry) Watch(id string) (*Watcher, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.sessions[id]
	if !ok {
		return nil, noSession(id)
	}
	w := &Watcher{registry: r, session: s, id: id, events: make(chan *keyholev1.Event, watcherEvents), changed: make(chan struct{}, 1)}
	s.watchers[w] = struct{}{}
	w.changed <- struct{}{}
	r.poke(s.Session.GetNode())
	return w, nil
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	delete(w.session.watchers, w)
	w.registry.poke(w.session.Session.GetNode())
}

// Next waits for what comes next: the session, changed; an event; and last the summary, behind all events that came before.
func (w *Watcher) Next(ctx context.Context) (*keyholev1.WatchSessionResponse, error) {
	for {
		select {
		case e := <-w.events:
			return &keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Event{Event: e}}, nil
		default:
		}
		select {
		case e := <-w.events:
			return &keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Event{Event: e}}, nil
		case <-w.changed:
			if m, err := w.look(); m != nil || err != nil {
				return m, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// look returns the session if it is not the one that was handed out last; nil if it is.
func (w *Watcher) look() (*keyholev1.WatchSessionResponse, error) {
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	if a := w.counts; a != nil {
		w.counts = nil
		w.poke() // what else has changed comes behind it
		return &keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Aggregate{Aggregate: a}}, nil
	}
	m := w.session.snapshot()
	if m.GetSummary() != nil {
		// What this watcher missed was delivered to the control plane, and no further.
		lost := min(w.lost, m.GetSummary().GetDelivered())
		m.Summary.Delivered -= lost
		m.Summary.LostToClient += lost
	}
	if m.GetRevision() == w.revision && proto.Equal(m.GetSummary(), w.summary) {
		if m.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
			return &keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Summary{Summary: m.GetSummary()}}, nil
		}
		if w.registry.sessions[w.id] != w.session {
			return nil, problem.New(problem.NotFound, "session %s is not kept any longer", w.id)
		}
		return nil, nil
	}
	w.revision, w.summary = m.GetRevision(), m.GetSummary()
	if m.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
		w.poke() // the summary comes behind it
	}
	return &keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Session{Session: m}}, nil
}

func (w *Watcher) poke() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// announce tells everybody who watches that the session has changed. The registry is locked.
func (s *session) announce() {
	for w := range s.watchers {
		w.poke()
	}
}

// DeliverCounts hands what a session has counted to those who watch it. A watcher that is slow gets the newest only.
func (r *Registry) DeliverCounts(nodeName string, a *keyholev1.Aggregate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[a.GetSessionId()]
	if s == nil || s.Session.GetNode() != nodeName {
		return
	}
	for w := range s.watchers {
		w.counts = a
		w.poke()
	}
}

// Deliver hands copies of a node's events to those who watch their sessions. Events of sessions that are not the node's are
// let go: their number is returned.
func (r *Registry) Deliver(nodeName string, events []*keyholev1.Event) (foreign int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		s := r.sessions[e.GetSessionId()]
		if s == nil || s.Session.GetNode() != nodeName {
			foreign++
			continue
		}
		for w := range s.watchers {
			select {
			case w.events <- e:
			default:
				w.lost++
			}
		}
	}
	return foreign
}

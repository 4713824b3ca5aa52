// SPDX-License-Identifier: Apache-2.0

// Package registry knows the sessions that were granted and the nodes that carry them out. What must survive is in the
// store; one watch of it is fanned out in memory. Captured data passes through and is kept nowhere.
package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	sessionsPath = "sessions/"
	requestsPath = "requests/"
	// reachTime is how long a granted session waits for its node before it ends as not attached.
	reachTime = 30 * time.Second
	// lostGrace is how long after a deadline a node that is away may still report what became of a session.
	lostGrace = 5 * time.Second
	// keepFor is how long beyond its TTL the record of a session stays.
	keepFor = time.Minute
)

// A Registry is safe for concurrent use.
type Registry struct {
	store   *store.Store
	changed <-chan store.Value

	mu       sync.Mutex
	sessions map[string]*session
	nodes    map[string]*node
	latest   int64 // revision of the newest change that was seen
	done     chan struct{}
}

// A session is what the store holds of one, and what is known of it beside that.
type session struct {
	stored
	revision int64 // of its key
	watchers map[*Watcher]struct{}
}

// stored is the session's record in the store.
type stored struct {
	Session   *keyholev1.Session
	Envelope  []byte // the grant, signed once
	Stop      bool
	StoppedBy string // what ended it shall say: stopped, revoked
}

type storedJSON struct {
	Session   json.RawMessage `json:"session"`
	Envelope  []byte          `json:"envelope"`
	Stop      bool            `json:"stop,omitempty"`
	StoppedBy string          `json:"stoppedBy,omitempty"`
}

func (s stored) marshal() ([]byte, error) {
	m, err := protojson.Marshal(s.Session)
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedJSON{m, s.Envelope, s.Stop, s.StoppedBy})
}

func unmarshal(data []byte) (stored, error) {
	var j storedJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return stored{}, err
	}
	s := stored{Session: &keyholev1.Session{}, Envelope: j.Envelope, Stop: j.Stop, StoppedBy: j.StoppedBy}
	// A record of a later version may say more.
	return s, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(j.Session, s.Session)
}

// Open reads what the store knows and follows it until ctx is done; Wait returns then.
func Open(ctx context.Context, s *store.Store) (*Registry, error) {
	r := &Registry{store: s, sessions: make(map[string]*session), nodes: make(map[string]*node), done: make(chan struct{})}
	values, changed, err := s.Follow(ctx, sessionsPath)
	if err != nil {
		return nil, err
	}
	r.changed = changed
	for _, v := range values {
		r.apply(v)
	}
	go r.run(ctx)
	return r, nil
}

// Wait returns when the registry has ended.
func (r *Registry) Wait() { <-r.done }

func (r *Registry) run(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case v, ok := <-r.changed:
			if !ok {
				return
			}
			r.apply(v)
		case <-ticker.C:
			r.expire(ctx, time.Now())
		}
	}
}

// apply takes a change of the store into account.
func (r *Registry) apply(v store.Value) {
	id := strings.TrimPrefix(v.Key, sessionsPath)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = max(r.latest, v.Revision)
	s := r.sessions[id]
	if v.Deleted {
		if s != nil {
			delete(r.sessions, id)
			r.poke(s.Session.GetNode())
			s.announce()
		}
		return
	}
	next, err := unmarshal(v.Data)
	if err != nil {
		return // not ours: nothing that it says is acted on
	}
	if s == nil {
		s = &session{watchers: make(map[*Watcher]struct{})}
		r.sessions[id] = s
	}
	if v.Revision <= s.revision {
		return
	}
	counts := s.Session.GetSummary()
	s.stored, s.revision = next, v.Revision
	s.Session.Revision = v.Revision
	if s.Session.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED && counts != nil {
		s.Session.Summary = counts // newer than what is stored while it runs
	}
	r.poke(s.Session.GetNode())
	s.announce()
}

// expire ends what nobody else will end: sessions whose node was not reached, or is gone for good.
func (r *Registry) expire(ctx context.Context, now time.Time) {
	type overdue struct{ id, endedBy, text string }
	var ended []overdue
	r.mu.Lock()
	for id, s := range r.sessions {
		m := s.Session
		switch m.GetState() {
		case keyholev1.SessionState_SESSION_STATE_ENDED:
		case keyholev1.SessionState_SESSION_STATE_GRANTED:
			if now.Sub(m.GetCreated().AsTime()) > reachTime {
				ended = append(ended, overdue{id, event.EndNotAttached, fmt.Sprintf("node %s did not answer within %v", m.GetNode(), reachTime)})
			}
		default:
			latest := m.GetCreated().AsTime().Add(reachTime + m.GetSpec().GetLimits().GetTtl().AsDuration())
			if m.GetDeadline() != nil {
				latest = m.GetDeadline().AsTime()
			}
			if r.nodes[m.GetNode()] == nil && now.Sub(latest) > lostGrace {
				ended = append(ended, overdue{id, event.EndAgentLost, fmt.Sprintf("node %s was not heard of again", m.GetNode())})
			}
		}
	}
	r.mu.Unlock()
	for _, o := range ended {
		// A conflict or a store that does not answer: tried again in a second.
		_ = r.update(ctx, o.id, func(s *stored) error {
			if s.Session.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
				return errUnchanged
			}
			s.Session.State = keyholev1.SessionState_SESSION_STATE_ENDED
			s.Session.Ended = timestamppb.Now()
			s.Session.Error, s.Session.ErrorCode = o.text, problem.Unavailable
			if s.Session.Summary == nil {
				s.Session.Summary = &keyholev1.Summary{}
			}
			s.Session.Summary.EndedBy, s.Session.Summary.CountsFinal = o.endedBy, false
			return nil
		})
	}
}

var errUnchanged = errors.New("nothing to change")

// update changes a session in the store, as often as somebody else comes in between.
func (r *Registry) update(ctx context.Context, id string, change func(*stored) error) error {
	for {
		v, err := r.store.Read(ctx, sessionsPath+id)
		if errors.Is(err, store.ErrNotFound) {
			return noSession(id)
		}
		if err != nil {
			return err
		}
		s, err := unmarshal(v.Data)
		if err != nil {
			return fmt.Errorf("read session %s: %w", id, err)
		}
		if err := change(&s); errors.Is(err, errUnchanged) {
			return nil
		} else if err != nil {
			return err
		}
		if v.Data, err = s.marshal(); err != nil {
			return err
		}
		revision, err := r.store.Write(ctx, 0, v)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		v.Revision = revision
		r.apply(v) // the caller sees its own change at once; the watch brings it again
		return nil
	}
}

func noSession(id string) *problem.Error {
	return problem.New(problem.NotFound, "no session %s; `keyhole sessions ls` lists those there are", id)
}

// Create puts a granted session into the store, once for each request of a caller. It returns the ID of the session that an
// earlier call with the same request made, and creates nothing then.
func (r *Registry) Create(ctx context.Context, m *keyholev1.Session, envelope []byte, requestID string) (earlier string, err error) {
	data, err := stored{Session: m, Envelope: envelope}.marshal()
	if err != nil {
		return "", err
	}
	v := store.Value{Key: sessionsPath + m.GetId(), Data: data}
	values := []store.Value{v}
	if requestID != "" {
		values = append(values, store.Value{Key: requestKey(m.GetRequester(), requestID), Data: []byte(m.GetId())})
	}
	ttl := reachTime + m.GetSpec().GetLimits().GetTtl().AsDuration() + keepFor
	revision, err := r.store.Write(ctx, ttl, values...)
	if errors.Is(err, store.ErrConflict) {
		return r.Requested(ctx, m.GetRequester(), requestID)
	}
	if err != nil {
		return "", err
	}
	v.Revision = revision
	r.apply(v)
	return "", nil
}

// Requested returns the session that a request made; none if there was no such request.
func (r *Registry) Requested(ctx context.Context, requester, requestID string) (string, error) {
	if requestID == "" {
		return "", nil
	}
	v, err := r.store.Read(ctx, requestKey(requester, requestID))
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return string(v.Data), err
}

func requestKey(requester, requestID string) string {
	return requestsPath + requester + "\x00" + requestID
}

// Session returns a session as it is known now.
func (r *Registry) Session(id string) (*keyholev1.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.sessions[id]
	if !ok {
		return nil, noSession(id)
	}
	return s.snapshot(), nil
}

func (s *session) snapshot() *keyholev1.Session { return proto.CloneOf(s.Session) }

// Sessions returns the sessions that have not ended, or all that are known, the oldest first.
func (r *Registry) Sessions(all bool) []*keyholev1.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*keyholev1.Session
	for _, s := range r.sessions {
		if all || s.Session.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
			list = append(list, s.snapshot())
		}
	}
	slices.SortFunc(list, func(a, b *keyholev1.Session) int {
		return cmp.Or(a.GetCreated().AsTime().Compare(b.GetCreated().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return list
}

// Stop wants a session ended; by is what it shall say ended it. A session that has ended stays as it is.
func (r *Registry) Stop(ctx context.Context, id, by string) error {
	return r.update(ctx, id, func(s *stored) error {
		if s.Stop || s.Session.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
			return errUnchanged
		}
		s.Stop, s.StoppedBy = true, by
		return nil
	})
}

// Report takes a node's word on one of its sessions. Spec, requester and node stay what was granted; a session that has ended
// stays so. It says nothing of a session that is not the node's.
func (r *Registry) Report(ctx context.Context, nodeName string, m *keyholev1.Session) error {
	r.mu.Lock()
	s, ok := r.sessions[m.GetId()]
	if !ok || s.Session.GetNode() != nodeName {
		r.mu.Unlock()
		return problem.New(problem.PermissionDenied, "node %s reports on session %.64q, which is none of its own", nodeName, m.GetId())
	}
	same := s.Session.GetState() == m.GetState()
	if same && m.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
		// Only counts moved: they are for those who watch, and not worth a write.
		s.Session.Summary = m.GetSummary()
		s.announce()
	}
	r.mu.Unlock()
	if same {
		return nil
	}
	return r.update(ctx, m.GetId(), func(s *stored) error {
		if s.Session.GetState() >= m.GetState() {
			return errUnchanged
		}
		s.Session = amend(s.Session, m)
		return nil
	})
}

// amend returns what is known of a session after its node's report: what the report leaves out stays, since an agent that
// closes a session of the one before it knows only that it is over; and what was granted is not the node's to say.
func amend(known, report *keyholev1.Session) *keyholev1.Session {
	next := proto.CloneOf(known)
	if len(report.GetSites()) > 0 {
		next.Sites = nil
	}
	if len(report.GetFields()) > 0 {
		next.Fields = nil
	}
	proto.Merge(next, report)
	next.Spec, next.Requester, next.Node, next.Created = known.GetSpec(), known.GetRequester(), known.GetNode(), known.GetCreated()
	next.Candidates = report.GetCandidates()
	return next
}

// Nodes returns the nodes that are connected, by name.
func (r *Registry) Nodes() []*keyholev1.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*keyholev1.Node, 0, len(r.nodes))
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		m := proto.CloneOf(r.nodes[name].facts)
		m.Connected, m.LastSeen = true, timestamppb.Now()
		for _, s := range r.sessions {
			if s.Session.GetNode() == name && s.Session.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
				m.Sessions++
			}
		}
		list = append(list, m)
	}
	return list
}

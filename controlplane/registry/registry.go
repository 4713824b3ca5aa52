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
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	sessionsPath = "sessions/"
	requestsPath = "requests/"
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

	ended func(*keyholev1.Session)
	done  chan struct{}
	err   error // why it ended, once done
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

// Open reads what the store knows and follows it until ctx is done; Wait returns then. It calls ended with each session that it
// ends itself, because its node is not heard of.
func Open(ctx context.Context, s *store.Store, ended func(*keyholev1.Session)) (*Registry, error) {
	r := &Registry{store: s, sessions: make(map[string]*session), nodes: make(map[string]*node), ended: ended, done: make(chan struct{})}
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

// Wait returns when the registry has ended. The error says that it lost sight of the store, and knows nothing any longer.
func (r *Registry) Wait() error {
	<-r.done
	return r.err
}

func (r *Registry) run(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case v, ok := <-r.changed:
			if !ok {
				if ctx.Err() == nil {
					r.err = errors.New("follow sessions: the store has ended the watch")
				}
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

// An Earlier is what an earlier call with the same request made.
type Earlier struct {
	SessionID  string `json:"sessionId"`
	AuditIndex uint64 `json:"auditIndex"` // of the intent
}

// Create puts a granted session, whose intent is on record, into the store, once for each request of a caller. It returns what an
// earlier call with the same request made, and creates nothing then.
func (r *Registry) Create(ctx context.Context, m *keyholev1.Session, envelope []byte, auditIndex uint64, requestID string) (*Earlier, error) {
	data, err := stored{Session: m, Envelope: envelope}.marshal()
	if err != nil {
		return nil, err
	}
	v := store.Value{Key: sessionsPath + m.GetId(), Data: data}
	values := []store.Value{v}
	if requestID != "" {
		data, err := json.Marshal(Earlier{m.GetId(), auditIndex})
		if err != nil {
			return nil, err
		}
		values = append(values, store.Value{Key: requestKey(m.GetRequester(), requestID), Data: data})
	}
	ttl := reachTime + m.GetSpec().GetLimits().GetTtl().AsDuration() + keepFor
	revision, err := r.store.Write(ctx, ttl, values...)
	if errors.Is(err, store.ErrConflict) && requestID != "" {
		return r.Requested(ctx, m.GetRequester(), requestID)
	}
	if err != nil {
		return nil, err
	}
	v.Revision = revision
	r.apply(v)
	return nil, nil
}

// Requested returns what a request made; nil if there was no such request.
func (r *Registry) Requested(ctx context.Context, requester, requestID string) (*Earlier, error) {
	if requestID == "" {
		return nil, nil
	}
	v, err := r.store.Read(ctx, requestKey(requester, requestID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var e Earlier
	if err := json.Unmarshal(v.Data, &e); err != nil {
		return nil, fmt.Errorf("read request %.64q: %w", requestID, err)
	}
	return &e, nil
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
	if _, known := keyholev1.SessionState_name[int32(m.GetState())]; !known {
		return problem.New(problem.InvalidArgument, "node %s reports a state %d, which there is not", nodeName, m.GetState())
	}
	r.mu.Lock()
	s, ok := r.sessions[m.GetId()]
	if !ok || s.Session.GetNode() != nodeName {
		r.mu.Unlock()
		return problem.New(problem.PermissionDenied, "node %s reports on session %.64q, which is none of its own", nodeName, m.GetId())
	}
	same := s.Session.GetState() == m.GetState()
	if same && m.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
		// Only counts moved, of calls or of children: they are for those who watch, and not worth a write.
		s.Session.Summary = m.GetSummary()
		s.Session.ForkedChildren, s.Session.ForkedSum = m.GetForkedChildren(), m.GetForkedSum()
		s.announce()
	}
	counts := proto.CloneOf(s.Session.GetSummary())
	r.mu.Unlock()
	if same {
		return nil
	}
	return r.update(ctx, m.GetId(), func(s *stored) error {
		if s.Session.GetState() >= m.GetState() {
			return errUnchanged
		}
		if counts != nil {
			s.Session.Summary = counts // newer than what is stored while it runs, and all that is known if its agent died
		}
		s.Session = amend(s.Session, m)
		return nil
	})
}

// amend returns what is known of a session after its node's report: what the report leaves out stays, since an agent that
// closes a session of the one before it knows only that it is over; and what was granted is not the node's to say.
func amend(known, report *keyholev1.Session) *keyholev1.Session {
	next := proto.CloneOf(known)
	next.ForkedChildren = nil // those that live
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

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	// reachTime is how long a granted session waits for its node before it ends as not attached.
	reachTime = 30 * time.Second
	// lostGrace is how long after a deadline a node that is away may still report what became of a session.
	lostGrace = 5 * time.Second
)

// expire ends what nobody else will end: sessions whose node was not reached, or is gone for good. The probe itself ended at
// its deadline, on its node; this is only what people are told.
func (r *Registry) expire(ctx context.Context, now time.Time) {
	r.mu.Lock()
	var overdue []string
	for id, s := range r.sessions {
		if endedBy, _ := r.overdue(s.Session, now); endedBy != "" {
			overdue = append(overdue, id)
		}
	}
	r.mu.Unlock()
	for _, id := range overdue {
		var ended *keyholev1.Session
		err := r.update(ctx, id, func(s *stored) error {
			r.mu.Lock()
			endedBy, why := r.overdue(s.Session, now) // as the store has it, which may be newer
			if known := r.sessions[id]; known != nil && known.Session.GetSummary() != nil {
				s.Session.Summary = proto.CloneOf(known.Session.GetSummary()) // newer than what is stored while it runs
			}
			r.mu.Unlock()
			if endedBy == "" {
				ended = nil
				return errUnchanged
			}
			s.Session.State = keyholev1.SessionState_SESSION_STATE_ENDED
			s.Session.Ended = timestamppb.New(now)
			s.Session.Error, s.Session.ErrorCode = why, problem.Unavailable
			if s.Session.Summary == nil {
				s.Session.Summary = &keyholev1.Summary{}
			}
			s.Session.Summary.EndedBy, s.Session.Summary.CountsFinal = endedBy, false
			ended = s.Session
			return nil
		})
		if err == nil && ended != nil { // else it is tried again in a second
			r.ended(ended)
		}
	}
}

// overdue says what ends a session now, and why; nothing if nobody but its node is to end it. The registry is locked.
func (r *Registry) overdue(m *keyholev1.Session, now time.Time) (endedBy, why string) {
	switch m.GetState() {
	case keyholev1.SessionState_SESSION_STATE_ENDED:
	case keyholev1.SessionState_SESSION_STATE_GRANTED:
		if now.Sub(m.GetCreated().AsTime()) > reachTime {
			return event.EndNotAttached, fmt.Sprintf("node %s did not answer within %v", m.GetNode(), reachTime)
		}
	default:
		latest := m.GetCreated().AsTime().Add(reachTime + m.GetSpec().GetLimits().GetTtl().AsDuration())
		if reported := m.GetDeadline(); reported != nil && reported.AsTime().Before(latest) {
			latest = reported.AsTime()
		}
		if r.nodes[m.GetNode()] == nil && now.Sub(latest) > lostGrace {
			return event.EndAgentLost, fmt.Sprintf("node %s was not heard of again", m.GetNode())
		}
	}
	return "", ""
}

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"time"

	"github.com/keyhole-dev/keyhole/internal/audit"
)

// A node that dies each time it attaches one probe must not do so again and again. What it was about to do is in its spool
// before it does it; its successor finds that it was not done, and writes so when it closes the session. That record is the tombstone.

// Names among the details of records.
const (
	Function   = "function"   // of about to attach
	Executable = "executable" // of about to attach
	DiedWhile  = "diedWhile"  // of detached: what an agent was about to do when it died
)

// Attaching is the value of DiedWhile for an agent that was about to attach and never said that it had.
const Attaching = "attaching"

// maxTombstones bounds what is remembered: the last ones.
const maxTombstones = 256

// A grave is what an agent was about to attach when it died, and when that was found out.
type grave struct {
	function, executable string
	found                time.Time
}

// bury takes a record into account.
func (s *Spool) bury(r *audit.Record) {
	switch r.Kind {
	case audit.AboutToAttach:
		s.attaching[r.SessionID] = grave{function: r.Details[Function], executable: r.Details[Executable]}
	case audit.Attached:
		delete(s.attaching, r.SessionID)
	case audit.Detached:
		g, ok := s.attaching[r.SessionID]
		delete(s.attaching, r.SessionID)
		if !ok || r.Details[DiedWhile] != Attaching {
			return
		}
		g.found = r.Time
		if s.graves = append(s.graves, g); len(s.graves) > maxTombstones {
			s.graves = s.graves[1:]
		}
	}
}

// IsAttaching says whether a session is on record as about to attach, and as nothing since.
func (s *Spool) IsAttaching(session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.attaching[session]
	return ok
}

// DiedAttaching says when it was last found out that an agent of this node had died while it attached to this function of this executable, both
// as they are on record.
func (s *Spool) DiedAttaching(function, executable string) (found time.Time, died bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.graves {
		if g.function == function && g.executable == executable && g.found.After(found) {
			found, died = g.found, true
		}
	}
	return found, died
}

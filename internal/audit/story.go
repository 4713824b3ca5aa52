// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// A Story checks, record by record, what must be true of all records of a log together: that what a node did to a session was
// granted first, and is told by the node itself, in one unbroken chain. The zero Story is ready.
type Story struct {
	sessions map[string]*facts
	nodes    map[string]*chain
	records  uint64
	findings []string
}

type facts struct {
	granted, aboutToAttach, attached, detached bool
	node                                       string // that it was granted to
}

// A chain is a node's records since its key was noted.
type chain struct {
	key  ed25519.PublicKey
	head Head
	seen map[[sha256.Size]byte]struct{}
}

// AuditKey is the name, among the details of a record `credential`, of the key that a node signs its records with, in hex.
const AuditKey = "auditKey"

// Add takes the next record of the log.
func (s *Story) Add(index uint64, data []byte) {
	s.records++
	r, err := Parse(data)
	if err != nil {
		s.find(index, "%v", err)
		return
	}
	if r.Kind == Credential {
		s.note(index, r)
	}
	if r.Chain != nil && !s.follow(index, r, data) || r.SessionID == "" {
		return
	}
	if ofNodes[r.Kind] && r.Chain == nil {
		s.find(index, "session %s is %s, and no node says so", r.SessionID, r.Kind)
	}
	if s.sessions == nil {
		s.sessions = make(map[string]*facts)
	}
	f := s.sessions[r.SessionID]
	if f == nil {
		f = &facts{}
		s.sessions[r.SessionID] = f
	}
	if f.granted && r.Chain != nil && r.Node != f.node {
		s.find(index, "node %s says %s of session %s, which is node %s's", r.Node, r.Kind, r.SessionID, f.node)
		return
	}
	switch r.Kind {
	case Granted:
		if f.granted {
			s.find(index, "session %s is granted twice", r.SessionID)
		}
		f.granted, f.node = true, r.Node
	case AboutToAttach:
		if !f.granted {
			s.find(index, "session %s is about to attach without a grant", r.SessionID)
		}
		f.aboutToAttach = true
	case Attached:
		if !f.aboutToAttach {
			s.find(index, "session %s is attached without a record before it", r.SessionID)
		}
		if f.attached {
			s.find(index, "session %s is attached twice", r.SessionID)
		}
		f.attached = true
	case Tripped:
		if !f.attached {
			s.find(index, "session %s has tripped without being attached", r.SessionID)
		}
	case Detached:
		if !f.aboutToAttach {
			s.find(index, "session %s is detached without having been about to attach", r.SessionID)
		}
		if f.detached {
			s.find(index, "session %s is detached twice", r.SessionID)
		}
		f.detached = true
	}
}

// ofNodes are the kinds that only a node writes.
var ofNodes = map[Kind]bool{AboutToAttach: true, Attached: true, Tripped: true, Detached: true}

// note begins the chain of a node with a key.
func (s *Story) note(index uint64, r *Record) {
	key, err := hex.DecodeString(r.Details[AuditKey])
	if err != nil || len(key) != ed25519.PublicKeySize {
		s.find(index, "the key of node %s cannot be read", r.Node)
		return
	}
	if s.nodes == nil {
		s.nodes = make(map[string]*chain)
	}
	begun := &chain{key: key, seen: make(map[[sha256.Size]byte]struct{})}
	if earlier := s.nodes[r.Node]; earlier != nil {
		begun.seen = earlier.seen
	}
	s.nodes[r.Node] = begun
}

// follow says whether a node's record is one to take into account: it continues the node's chain. A record that was handed over
// twice, because nobody knew that the first time was enough, is the same to the last bit and stands once.
func (s *Story) follow(index uint64, r *Record, data []byte) bool {
	c := s.nodes[r.Node]
	if c == nil {
		s.find(index, "node %s has no key on record", r.Node)
		return false
	}
	hash := sha256.Sum256(data)
	if _, twice := c.seen[hash]; twice {
		return false
	}
	c.seen[hash] = struct{}{}
	_, next, err := c.head.Follow(data, c.key, r.Node)
	if err != nil {
		s.find(index, "%v", err)
		return false
	}
	c.head = next
	return true
}

func (s *Story) find(index uint64, format string, args ...any) {
	const most = 100
	if len(s.findings) < most {
		s.findings = append(s.findings, fmt.Sprintf("record %d: ", index)+fmt.Sprintf(format, args...))
	}
}

// Records is how many records were added.
func (s *Story) Records() uint64 { return s.records }

// Findings are what is wrong, the first hundred; none in a sound log.
func (s *Story) Findings() []string { return s.findings }

// Open counts the sessions that are on record as about to attach and not as detached: they run, or their node has not
// handed its records over yet.
func (s *Story) Open() int {
	n := 0
	for _, f := range s.sessions {
		if f.aboutToAttach && !f.detached {
			n++
		}
	}
	return n
}

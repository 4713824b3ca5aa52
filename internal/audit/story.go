// SPDX-License-Identifier: Apache-2.0

package audit

import "fmt"

// A Story checks, record by record, what must be true of all records of a log together. The zero Story is ready.
type Story struct {
	sessions map[string]*facts
	records  uint64
	findings []string
}

type facts struct {
	granted, aboutToAttach, attached, detached bool
}

// Add takes the next record of the log.
func (s *Story) Add(index uint64, data []byte) {
	s.records++
	r, err := Parse(data)
	if err != nil {
		s.find(index, "%v", err)
		return
	}
	if r.SessionID == "" {
		return
	}
	if s.sessions == nil {
		s.sessions = make(map[string]*facts)
	}
	f := s.sessions[r.SessionID]
	if f == nil {
		f = &facts{}
		s.sessions[r.SessionID] = f
	}
	switch r.Kind {
	case Granted:
		if f.granted {
			s.find(index, "session %s is granted twice", r.SessionID)
		}
		f.granted = true
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

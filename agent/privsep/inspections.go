// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// inspectionLifetime is how long an inspector lives at most, and with it what the monitor keeps open for it.
const inspectionLifetime = 2 * time.Minute

// maxSites bounds what one comparison looks at.
const maxSites = 64

// maxSiteBytes is the longest instruction of any architecture (x86).
const maxSiteBytes = 15

// handed is what the inspector gets beside the executable.
type handed struct {
	Identity target.Identity `json:"identity"`
	Maps     []byte          `json:"maps"`
	// Kernel is what may be seen of the kernel, if that is the target; then the executable is its BTF.
	Kernel *policy.Kernel `json:"kernel,omitempty"`
	// OtherProcesses that the selector matched too.
	OtherProcesses int `json:"otherProcesses"`
	// Symbols says that the inspector is to look up addresses and nothing else: nobody hears it vouch for a Target.
	Symbols bool `json:"symbols,omitempty"`
}

// inspect looks a process up and starts an inspector for it. It returns the inspector's socket.
func (m *monitor) inspect(s probe.Selector) (*inspected, int, error) {
	if !m.inspecting.take() {
		return nil, -1, problem.New(problem.ResourceExhausted, "%d processes are being looked at on this node: try again in a moment", maxInspections)
	}
	subject, others, err := m.find(s)
	if err != nil {
		m.inspecting.free()
		return nil, -1, err
	}
	if err := m.judge.ceiling.AllowProcess(&subject.identity); err != nil {
		subject.release()
		m.inspecting.free()
		return nil, -1, err
	}
	in, socket, err := m.startInspector(subject, others)
	if err != nil {
		subject.release()
		m.inspecting.free()
		return nil, -1, err
	}
	return in, socket, nil
}

// find opens the process that a selector names, the one with the lowest number where several match.
func (m *monitor) find(s probe.Selector) (_ *subject, others int, err error) {
	switch s.Kind {
	case probe.SelectKernel:
		subject, err := openKernel()
		return subject, 0, err
	case probe.SelectPID:
		subject, err := openSubject(s.PID, m.self)
		return subject, 0, err
	case probe.SelectExe:
		pids, err := procfs.Running("/proc", resolveLinks(s.Path))
		if err != nil {
			return nil, 0, err
		}
		for i, pid := range pids {
			subject, err := openSubject(pid, m.self)
			if p, ok := errors.AsType[*problem.Error](err); ok && p.Code == problem.NotFound {
				continue // it ended meanwhile
			}
			return subject, len(pids) - i - 1, err
		}
		return nil, 0, problem.New(problem.NotFound, "no process on this node runs %s: start it, or name the process as pid/N", s.Path)
	default:
		return nil, 0, problem.New(problem.InvalidArgument, "a target of kind %q", s.Kind)
	}
}

// resolveLinks is the path by which the kernel knows an executable that somebody may have named by a link to it.
func resolveLinks(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path // deleted, or replaced: processes may still run what was there
}

// startInspector takes the subject over if it succeeds, and the slot.
func (m *monitor) startInspector(s *subject, others int) (*inspected, int, error) {
	about := handed{Identity: s.identity, Maps: s.maps, OtherProcesses: others}
	if s.isKernel() {
		about.Kernel = &m.judge.ceiling.Kernel
	}
	maps, err := handOver("keyhole-subject", about)
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(maps)
	s.maps = nil // it can be large, and is not needed here
	proofs, vouching, err := newProofs()
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(vouching)
	s.proofs = proofs // closed with the subject
	var out struct {
		id     uint64
		socket int
		err    error
	}
	var timer *bootTimer
	err = control(s.exe, func(exe int) error {
		out.id, out.socket, out.err = m.spawn(childSpec{
			by:    m.bare,
			start: start{name: inspectorName, role: roleInspector, files: []int{maps, exe, vouching}, env: inspectorEnvironment},
			registered: func(id uint64, c *child) {
				m.inspections[id] = s
				m.shareText(s)
				timer, _ = atBootTime(loader.BootNow()+uint64(inspectionLifetime), func() { _ = c.signal(unix.SIGKILL) })
			},
			exited: func(id uint64, _ string) {
				if timer != nil {
					timer.stop()
				}
				m.mu.Lock()
				delete(m.inspections, id)
				m.mu.Unlock()
				s.release()
				m.inspecting.free()
			},
		})
		return out.err
	})
	if err != nil {
		return nil, -1, err
	}
	return &inspected{ID: out.id, Identity: s.identity}, out.socket, nil
}

// inspection finds the subject of an inspection that goes on. The caller releases it.
func (m *monitor) inspection(id uint64) (*subject, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.inspections[id]
	if !ok {
		return nil, problem.New(problem.FailedPrecondition, "the inspection has ended: after %v, or because its inspector died", inspectionLifetime)
	}
	return s.retain(), nil
}

// compare answers the agent's question whether the memory at the sites of what was resolved is what was analysed. It speaks of no memory but the code
// that an inspector has proved these sites in: else the agent could ask for any.
func (m *monitor) compare(r compareRequest) error {
	s, err := m.inspection(r.Inspection)
	if err != nil {
		return err
	}
	defer s.release()
	if r.Spec == nil || r.Target == nil {
		return problem.New(problem.InvalidArgument, "compare: no request, or no target")
	}
	if err := s.proofs.require(r.Spec, r.Target); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := m.admitReturns(s, r.Target); err != nil {
		return err
	}
	s.text.Lock()
	defer s.text.Unlock()
	return m.admit(s, r.Target.Sites)
}

// admit says why a breakpoint at one of the sites would not be safe by what is there now: what is not the executable's code, memory that is not what was
// analysed, or a breakpoint that is not ours. The lock of text is held. No byte of memory is in what it says.
func (m *monitor) admit(s *subject, sites []target.Site) error {
	if s.isKernel() {
		return nil // it judges each attach by itself, and there is nothing to compare
	}
	if len(sites) == 0 || len(sites) > maxSites {
		return problem.New(problem.InvalidArgument, "%d sites; want 1 to %d", len(sites), maxSites)
	}
	if err := m.admitHarm(s, sites); err != nil {
		return err
	}
	code, err := s.code()
	if err != nil {
		return err
	}
	for _, site := range sites {
		if err := s.isCode(code, site); err != nil {
			return err
		}
		how, err := s.look(site)
		switch {
		case err != nil:
			return problem.New(problem.FailedPrecondition, "site %#x: %v", site.Address, err)
		case how == siteGone:
			return problem.New(problem.FailedPrecondition, "target_replaced: process %d has executed another program or ended", s.identity.PID)
		case how == siteOther:
			return problem.New(problem.FailedPrecondition,
				"site %#x: the process's memory is not what is in the analysed file: something has changed the code", site.Address)
		case how == siteProbed && !m.isOurs(s, site, nil):
			return problem.New(problem.FailedPrecondition,
				"site %#x: another tool has a breakpoint there (a debugger, a profiler): end that first, or choose another function", site.Address)
		}
	}
	return nil
}

// shareText gives a subject the lock of its process's text. The lock of the monitor is held.
func (m *monitor) shareText(s *subject) {
	for _, other := range m.inspections {
		if other != s && other.same(s) {
			s.text = other.text
			return
		}
	}
	for _, h := range m.holds {
		if h.subject.same(s) {
			s.text = h.subject.text
			return
		}
	}
	s.text = new(sync.Mutex)
}

// isOurs says whether a holder other than the excepted one has a breakpoint at a site, or is about to. The lock of text is held.
func (m *monitor) isOurs(s *subject, site target.Site, except *hold) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.holds {
		if h == except || !h.subject.same(s) {
			continue
		}
		for _, own := range h.sites {
			if own.RuntimeAddress == site.RuntimeAddress {
				return true
			}
		}
	}
	return false
}

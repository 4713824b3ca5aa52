// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"reflect"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/control"
	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/session"
	"github.com/keyhole-dev/keyhole/internal/grant"
)

// linkConfig says who this node is and whom it believes.
func (r *runner) linkConfig(ctx context.Context, spoolKey ed25519.PrivateKey) (control.Config, error) {
	pinned, err := grant.Pinned(r.config.GrantKeys, r.config.LogKey, r.config.Node)
	if err != nil {
		return control.Config{}, err
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return control.Config{}, fmt.Errorf("ask for the kernel's name: %w", err)
	}
	node := control.Node{
		Name: r.config.Node, Version: version(), Kernel: unix.ByteSliceToString(host.Release[:]), Arch: runtime.GOARCH,
		Tier: "full", ProgramDigest: loader.ProgramDigest(),
	}
	able, err := r.client.Check(ctx)
	if err != nil {
		return control.Config{}, err
	}
	if r.unsupported = able.SelfTest.Err(); r.unsupported != nil {
		node.Tier, node.Why = "refused", r.unsupported.Error()
	}
	node.Report = able
	return control.Config{
		Address: r.config.ControlPlane, TLS: r.config.tls, Node: node, SpoolKey: spoolKey.Public().(ed25519.PublicKey), Grants: pinned, Log: r.log,
	}, nil
}

// The link calls these from its own goroutines; run takes them one at a time.

// Connected implements control.Handler.
func (r *runner) Connected() {
	select {
	case r.connected <- struct{}{}:
	case <-r.done:
	}
}

// Desired implements control.Handler.
func (r *runner) Desired(d control.Desired) {
	select {
	case r.desired <- d:
	case <-r.done:
	}
}

// Live implements control.Handler.
func (r *runner) Live() []string {
	reply := make(chan []string, 1)
	select {
	case r.live <- reply:
		return <-reply
	case <-r.done:
		return nil
	}
}

// reconcile gives the desired set to the machine, and each session that it begins its job.
func (r *runner) reconcile(d control.Desired) {
	e := session.Desired{Revision: d.Revision, Sessions: make([]session.Desire, len(d.Sessions))}
	wanted := make(map[string]bool, len(d.Sessions))
	for i := range d.Sessions {
		w := &d.Sessions[i]
		wanted[w.SessionID] = true
		e.Sessions[i] = session.Desire{SessionID: w.SessionID, Stop: w.Stop, StoppedBy: w.StoppedBy, Watched: w.Watched, Refused: w.Refused}
		if w.Grant == nil {
			continue
		}
		e.Sessions[i].Revision = w.Grant.Revision
		if j := r.job(w.SessionID); j.grant == nil {
			j.grant, j.envelope = w.Grant, w.Envelope
		}
	}
	r.handle(e)
	for id, j := range r.jobs {
		s, known := r.machine.Session(id)
		j.watched.Store(s.Watched)
		if (!known || s.State == session.Ended) && !wanted[id] {
			j.cancel()
			delete(r.jobs, id)
		}
	}
}

// job returns the session's job; one that this agent has not begun gets an empty one.
func (r *runner) job(id string) *job {
	j := r.jobs[id]
	if j == nil {
		j = newJob(id)
		r.jobs[id] = j
	}
	return j
}

// count looks at the counts of the sessions that run.
func (r *runner) count() {
	for _, id := range r.machine.Live() {
		if s, _ := r.machine.Session(id); s.State == session.Counting || s.State == session.Attached || s.State == session.Detaching {
			j := r.job(id)
			r.handle(session.Counted{SessionID: id, Counts: j.holder.Counts()})
			if forked := j.holder.Forked(); !reflect.DeepEqual(forked, j.forked) {
				j.forked = forked
				r.report(id)
			}
		}
	}
}

var states = map[session.State]control.State{
	session.Preparing: control.Attaching, session.Refusing: control.Attaching, session.Recording: control.Attaching,
	session.Attaching: control.Attaching, session.Confirming: control.Attaching, session.Counting: control.Attaching, session.Attached: control.Attached,
	session.Detaching: control.Detaching, session.Tripping: control.Detaching, session.Closing: control.Detaching, session.Ended: control.Ended,
}

// report tells the control plane a session's present state.
func (r *runner) report(id string) {
	s, known := r.machine.Session(id)
	if !known {
		return
	}
	report := control.Report{
		SessionID: id, Revision: s.Revision, State: states[s.State], HolderPID: s.HolderPID, Counts: s.Counts, Problem: s.Problem, PlanDigest: s.PlanDigest,
	}
	if s.State == session.Ended {
		report.EndedBy = s.EndedBy
	}
	if j := r.jobs[id]; j != nil {
		j.fill(&report, &s)
	}
	r.link.Report(&report)
}

func (j *job) fill(report *control.Report, s *session.Session) {
	now := time.Now()
	if s.HolderPID != 0 && j.attachedAt.IsZero() {
		j.attachedAt, j.deadline = now, wall(s.DeadlineNs)
	}
	if s.State == session.Ended && j.endedAt.IsZero() {
		j.endedAt = now
	}
	report.AttachedAt, report.Deadline, report.EndedAt = j.attachedAt, j.deadline, j.endedAt
	if s.PlanDigest == "" {
		return // the plan is not there yet, or about to be
	}
	p := j.plan
	report.PID, report.Sites = p.Identity.PID, p.Sites
	report.PolicyDigest, report.Function, report.Process = p.PolicyDigest, p.Function, processText(&p.Identity)
	report.Forked, report.ForkedSum = j.forked.PIDs, j.forked.Sum
	report.BuildID, report.Fields = p.Identity.BuildID, fields(p)
}

// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/keyhole-dev/keyhole/agent/control"
	"github.com/keyhole-dev/keyhole/agent/export"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/agent/session"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A job is what carrying out one session takes, beside its state. An effect fills it in before it posts the event
// that lets the next effect, or the runner, read it.
type job struct {
	id       string
	grant    *grant.Grant
	envelope []byte
	watched  atomic.Bool

	ctx    context.Context // of Prepare and Hold, and of the wait for the deadline
	cancel context.CancelFunc

	inspection *privsep.Inspection
	target     *target.Target
	plan       *plan.Plan
	holder     *privsep.Holder

	forked privsep.Forked // as last reported

	// Wall times for people, noted when they are first reported.
	attachedAt, deadline, endedAt time.Time
}

func newJob(id string) *job {
	j := &job{id: id}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// A draft is a request resolved and compiled, with what it was resolved by still open.
type draft struct {
	inspection *privsep.Inspection
	target     *target.Target
	plan       *plan.Plan
}

// draft goes the way of a request up to its plan, under the node's ceiling. The caller closes its inspection.
func (r *runner) draft(ctx context.Context, spec *probe.Spec, owners *redact.Ruleset) (*draft, error) {
	if err := r.ceiling.Allow(spec); err != nil {
		return nil, err
	}
	rules, err := r.ceiling.Ruleset(owners)
	if err != nil {
		return nil, err
	}
	inspection, err := r.client.Inspect(ctx, spec.Target)
	if err != nil {
		return nil, err
	}
	d := &draft{inspection: inspection}
	if err := r.compile(ctx, d, spec, rules); err != nil {
		inspection.Close()
		return nil, err
	}
	return d, nil
}

func (r *runner) compile(ctx context.Context, d *draft, spec *probe.Spec, rules *redact.Ruleset) error {
	var err error
	if d.target, err = d.inspection.Resolve(ctx, *spec); err != nil {
		return err
	}
	if err := r.ceiling.AllowTarget(d.target); err != nil {
		return err
	}
	if err := d.inspection.Compare(ctx, *spec, d.target); err != nil {
		return err
	}
	d.plan, err = plan.Compile(spec, d.target, rules)
	return err
}

func (r *runner) prepare(j *job) session.Event {
	if r.unsupported != nil {
		return session.PrepareFailed{SessionID: j.id, Problem: problem.New(problem.FailedPrecondition, "this node cannot be probed: %v", r.unsupported)}
	}
	d, err := r.draft(j.ctx, &j.grant.Spec, &j.grant.Rules)
	if err != nil {
		return session.PrepareFailed{SessionID: j.id, Problem: problem.Of(err)}
	}
	j.inspection, j.target, j.plan = d.inspection, d.target, d.plan
	if err := r.tombstone(j, time.Now()); err != nil {
		d.inspection.Close()
		return session.PrepareFailed{SessionID: j.id, Problem: problem.Of(err)}
	}
	return session.Prepared{SessionID: j.id, PlanDigest: d.plan.Digest()}
}

// append makes a record durable and says so.
func (r *runner) append(f session.Record, record audit.Record) {
	_, err := r.spool.Append(record)
	r.link.SpoolGrew()
	switch {
	case err != nil:
		r.log.Error("audit: a record is not durable", "session", f.SessionID, "kind", f.Kind, "error", err)
		p := problem.New(problem.Internal, "the audit record %q could not be made durable: %v", f.Kind, err)
		if !f.Aside {
			r.post(session.RecordFailed{SessionID: f.SessionID, Kind: f.Kind, Problem: p})
		}
	case !f.Aside:
		r.post(session.Recorded{SessionID: f.SessionID, Kind: f.Kind})
	}
}

// hold starts the holder and then watches the session's deadline until the job is over.
func (r *runner) hold(j *job) {
	h, err := r.client.Hold(j.ctx, privsep.HoldRequest{
		Envelope: j.envelope, Inspection: j.inspection, Target: j.target, PlanDigest: j.plan.Digest(),
	})
	if err != nil {
		r.post(session.AttachFailed{SessionID: j.id, Problem: problem.Of(err)})
		return
	}
	j.holder = h
	deadline := h.Attached().DeadlineNs
	r.post(session.HolderAttached{SessionID: j.id, HolderPID: h.PID(), DeadlineNs: deadline})
	if err := waitUntil(j.ctx, deadline); errors.Is(err, context.Canceled) {
		return
	} else if err != nil {
		r.log.Error("deadline: only the holder and the monitor look at it", "session", j.id, "error", err)
		return
	}
	r.post(session.DeadlineReached{SessionID: j.id})
}

// forward takes the holder's events to their end: each becomes a span, and, while somebody watches, a live copy of it.
// If they are not to be handed on they are taken all the same, so that the holder can end.
func (r *runner) forward(j *job, handOn bool) {
	events, admitted := j.holder.Events(), j.holder.Admitted()
	stacks := r.newStacks(j)
	defer stacks.close()
	if handOn {
		stacks.prepare(j.ctx)
	}
	for taking := true; taking; {
		select {
		case <-admitted:
			admitted = nil
			r.post(session.HolderAdmitted{SessionID: j.id})
		case a := <-j.holder.Counted():
			r.handOnCounted(j, a, handOn)
		case batch, open := <-events:
			if open && handOn {
				stacks.name(batch)
				r.handOn(j, batch)
			}
			taking = open
		}
	}
	select {
	case a := <-j.holder.Counted():
		r.handOnCounted(j, a, handOn)
	default:
	}
	final, err := j.holder.Wait()
	r.metrics.End(j.id)
	j.cancel()
	ended := session.HolderEnded{SessionID: j.id, EndedBy: final.EndedBy, Counts: final.Counts, TextRestored: final.TextRestored}
	if ended.Problem = final.Why; err != nil {
		ended.Problem = problem.Of(err)
	}
	r.post(ended)
}

// handOnCounted makes metrics of what a session has counted, and, while somebody watches, a live copy.
func (r *runner) handOnCounted(j *job, a *event.Aggregate, handOn bool) {
	if !handOn {
		return
	}
	r.metrics.Update(a)
	if j.watched.Load() {
		r.link.OfferAggregate(a)
	}
}

func (r *runner) handOn(j *job, batch []event.Event) {
	watched := j.watched.Load()
	var copies []control.Copy
	if watched {
		copies = make([]control.Copy, 0, len(batch))
	}
	for i := range batch {
		ids := export.Span(r.tracer, &batch[i])
		if watched {
			copies = append(copies, control.Copy{Event: batch[i], TraceID: ids.Trace, SpanID: ids.Span})
		}
	}
	if watched {
		r.link.Offer(copies)
	}
}

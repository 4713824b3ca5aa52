// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/keyhole-dev/keyhole/agent/control"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Explain implements control.Handler: it goes the way of a session up to its plan, and lets go of it.
func (r *runner) Explain(ctx context.Context, spec *probe.Spec, rules *redact.Ruleset) (*control.Explanation, error) {
	d, err := r.draft(ctx, spec, rules)
	if err != nil {
		return nil, err
	}
	defer d.inspection.Close()
	p := d.plan
	e := &control.Explanation{
		Target: d.target, Process: processText(&p.Identity), Fields: fields(p), Limits: probe.Limits(p.Limits),
		PolicyDigest: p.PolicyDigest, PlanDigest: p.Digest(), Listing: p.Listing(), RecordBytes: p.MaxRecordBytes(),
	}
	for _, c := range p.Conditions {
		e.Conditions = append(e.Conditions, c.Text)
	}
	if r := p.Returns; r != nil {
		if r.SlowerThan > 0 {
			e.Conditions = append(e.Conditions, fmt.Sprintf("%s >= %v", probe.Duration, r.SlowerThan))
		}
		for _, c := range r.Conditions {
			e.Conditions = append(e.Conditions, c.Text)
		}
	}
	return e, nil
}

// Functions implements control.Handler.
func (r *runner) Functions(ctx context.Context, s probe.Selector, pattern string, limit int) (*control.Listing, error) {
	inspection, err := r.client.Inspect(ctx, s)
	if err != nil {
		return nil, err
	}
	defer inspection.Close()
	// What the ceiling says of a whole process holds for its list of functions.
	if err := r.ceiling.AllowTarget(&target.Target{Identity: inspection.Identity()}); err != nil {
		return nil, err
	}
	found, err := inspection.Functions(ctx, pattern, limit)
	if err != nil {
		return nil, err
	}
	return listing(found), nil
}

func processText(i *target.Identity) string {
	if i.Kernel != "" {
		return i.Comm
	}
	return fmt.Sprintf("%s[%d]", i.Comm, i.PID)
}

// fields are the plan's values as people are shown them.
func fields(p *plan.Plan) []control.Field {
	all := p.AllFields()
	list := make([]control.Field, len(all))
	for i, f := range all {
		list[i] = control.Field{
			Path: f.Path, Type: f.TypeName, Kind: string(f.Kind), Action: f.Action, Rule: f.Rule, Missing: f.Missing, Detail: f.Detail,
			Reads: p.Reads(i), MaxBytes: f.MaxBytes, Result: i >= len(p.Fields),
		}
	}
	return list
}

func listing(l *resolve.Listing) *control.Listing {
	list := &control.Listing{Matched: l.Matched, Executable: l.Executable, Stripped: l.Stripped}
	for _, f := range l.Functions {
		if f.Refused == "" {
			f.Refused = policy.Internal(f.Name)
		}
		info := control.Function{Name: f.Name, Signature: f.Signature, File: f.File, Line: f.Line, Refused: f.Refused}
		for _, p := range f.Parameters {
			info.Parameters = append(info.Parameters, control.Parameter(p))
		}
		list.Functions = append(list.Functions, info)
	}
	return list
}

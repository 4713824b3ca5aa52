// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// returns appends what is done at the return of a call: its own conditions, then the results. It shares no slot with the entry,
// whose registers and memory are of another time.
func (c *compiler) returns() error {
	t := c.target.Returns
	if t == nil {
		return nil
	}
	r := &Returns{By: t.By, ByKernel: t.ByKernel, GoidOffset: t.GoidOffset, SlowerThan: c.spec.SlowerThan, Start: len(c.plan.Ops), Results: []Field{}}
	c.plan.Returns = r
	var b builder
	if t.Failed != nil {
		if err := c.failed(&b, t.Failed); err != nil {
			return err
		}
	}
	r.IfEnd = r.Start + len(b.steps)
	for i := range t.Values {
		r.Results = append(r.Results, c.field(&b, &t.Values[i]))
		if err := c.fits("--ret", t.Values[i].Path); err != nil {
			return err
		}
	}
	ops, err := b.ops("--ret")
	if err != nil {
		return err
	}
	if c.plan.Ops = append(c.plan.Ops, ops...); len(c.plan.Ops) > MaxOps {
		return tooMuch("--ret", b.steps[len(b.steps)-1].path, fmt.Sprintf("more than %d steps", MaxOps))
	}
	return nil
}

// failed appends the condition that a call failed.
func (c *compiler) failed(b *builder, v *target.Value) error {
	d := c.decide(v)
	if !mayCompare(d.Action, 0) {
		return problem.New(problem.InvalidArgument, "--errors-only: the result %s is redacted (%s, rule %s), and leaving calls out by it would tell "+
			"what is withheld", v.Path, d.Action, d.Rule)
	}
	if v.Missing != "" {
		return problem.New(problem.FailedPrecondition, "--errors-only: the result %s cannot be read: %s", v.Path,
			strings.TrimRight(v.Missing+": "+v.Detail, ": "))
	}
	compare, text := CmpNE, v.Path+" != 0"
	switch {
	case v.Kind == target.KindError:
		text = v.Path + " != nil"
	case c.spec.Errors == probe.ErrorsOnly && v.Kind == target.KindInt:
		compare, text = CmpLT|CmpSigned, v.Path+" < 0"
	case c.spec.Errors == probe.ErrorsOnly:
		return problem.New(problem.InvalidArgument, "--errors-only: the result %s is a %s, which is never negative; --errors-only=%s means "+
			"calls with another result than 0", v.Path, v.TypeName, probe.NonzeroOnly)
	}
	op := Op{Code: OpIfInt, Arg: uint8(v.Size), N: uint32(compare), Aux: c.pool(make([]byte, 8))}
	b.use(op, b.locate(&v.Data, v.Size, v.User, v.Path), nil, v.Path)
	c.plan.Returns.Conditions = []Condition{{Path: v.Path, Text: text, Action: d.Action.String(), Rule: d.Rule}}
	return nil
}

// verify says whether the parts of a plan that is paired agree with each other.
func (r *Returns) verify(p *Plan) error {
	sites := 0
	for _, s := range p.Sites {
		if s.Return {
			sites++
		}
	}
	switch {
	case r == nil && sites > 0:
		return errors.New("a site at a return, and nothing is paired")
	case r == nil:
		return nil
	case sites == len(p.Sites):
		return errors.New("no site is an entry")
	case r.By != target.ByGoroutine && r.By != target.ByThread:
		return fmt.Errorf("paired by %q", r.By)
	case sites == 0:
		return errors.New("no site is a return")
	case r.ByKernel && p.Stack != nil:
		return errors.New("the kernel's return probe, which hides the callers of a stack")
	case r.ByKernel && (p.Goroutine || r.GoidOffset != 0):
		return errors.New("the kernel's return probe, in a program with goroutines")
	case r.GoidOffset < 0 || r.GoidOffset > maxGoidOffset || r.SlowerThan < 0 || r.SlowerThan > probe.MaxTTL:
		return errors.New("a place or a time that is out of bounds")
	case r.Start < p.IfEnd || r.IfEnd < r.Start || r.IfEnd > len(p.Ops):
		return fmt.Errorf("of %d ops the return decides by %d to %d: out of bounds", len(p.Ops), r.Start, r.IfEnd)
	}
	if r.ByKernel {
		if err := target.KernelReturn(&p.Identity, p.Sites, r.By); err != nil {
			return err
		}
	}
	for i := range r.Results {
		if err := r.Results[i].verify(p.Identity.Kernel != ""); err != nil {
			return fmt.Errorf("result %d (%.64s): %w", i, r.Results[i].Path, err)
		}
	}
	return nil
}

const maxGoidOffset = 4096 // far more than a runtime.g has

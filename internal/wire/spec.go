// SPDX-License-Identifier: Apache-2.0

// Package wire turns the protocol's messages into the values that the program works with, and back. It is the one place
// that knows both; what comes from the wire is validated by the value's own rules before it is returned.
package wire

import (
	"errors"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// FromSpec reads a request, with its defaults filled in. The error is a *problem.Error of code INVALID_ARGUMENT.
func FromSpec(m *keyholev1.Spec) (*probe.Spec, error) {
	target, err := selector(m.GetTarget())
	if err != nil {
		return nil, err
	}
	spec := probe.Spec{
		Target:   target,
		Function: m.GetFunction(),
		Where:    m.GetWhere(),
		Limits: probe.Limits{
			TTL:        m.GetLimits().GetTtl().AsDuration(),
			MaxHits:    m.GetLimits().GetMaxHits(),
			Rate:       m.GetLimits().GetRate(),
			Sample:     m.GetLimits().GetSample(),
			MaxBytes:   m.GetLimits().GetMaxBytes(),
			ValueBytes: m.GetLimits().GetValueBytes(),
			Budget:     probe.Budget(m.GetLimits().GetBudget()),
			Duty:       probe.Duty(m.GetLimits().GetDuty()),
		},
		SlowerThan: m.GetSlowerThan().AsDuration(),
		Errors:     probe.Errors(m.GetErrors()),
		Reason:     m.GetReason(),
		Aggregate:  probe.Aggregate(m.GetAggregate()),
		Stack:      m.GetStack(),
	}
	for _, path := range m.GetResults() {
		spec.Results = append(spec.Results, probe.Canonical(path))
	}
	for _, path := range m.GetArguments() {
		spec.Arguments = append(spec.Arguments, probe.Canonical(path))
	}
	for _, r := range m.GetRedact() {
		spec.Redact = append(spec.Redact, probe.Redaction{Path: probe.Canonical(r.GetPath()), Action: r.GetAction()})
	}
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return nil, invalid(err)
	}
	return &spec, nil
}

// ToSpec writes a request.
func ToSpec(s *probe.Spec) *keyholev1.Spec {
	m := &keyholev1.Spec{
		Target:    ToSelector(s.Target),
		Function:  s.Function,
		Arguments: s.Arguments,
		Where:     s.Where,
		Limits:    ToLimits(s.Limits),
		Results:   s.Results,
		Errors:    string(s.Errors),
		Reason:    s.Reason,
		Aggregate: string(s.Aggregate),
		Stack:     s.Stack,
	}
	if s.SlowerThan > 0 {
		m.SlowerThan = durationpb.New(s.SlowerThan)
	}
	for _, r := range s.Redact {
		m.Redact = append(m.Redact, &keyholev1.Redaction{Path: r.Path, Action: r.Action})
	}
	return m
}

// ToLimits writes the limits of a request.
func ToLimits(l probe.Limits) *keyholev1.Limits {
	return &keyholev1.Limits{
		Ttl:        durationpb.New(l.TTL),
		MaxHits:    l.MaxHits,
		Rate:       l.Rate,
		Sample:     l.Sample,
		MaxBytes:   l.MaxBytes,
		ValueBytes: l.ValueBytes,
		Budget:     uint32(l.Budget),
		Duty:       uint32(l.Duty),
	}
}

// FromSelector reads a selector. The error is a *problem.Error of code INVALID_ARGUMENT.
func FromSelector(m *keyholev1.Selector) (probe.Selector, error) {
	s, err := selector(m)
	if err != nil {
		return probe.Selector{}, err
	}
	if err := s.Validate(); err != nil {
		return probe.Selector{}, invalid(err)
	}
	return s, nil
}

// ToSelector writes a selector.
func ToSelector(s probe.Selector) *keyholev1.Selector {
	m := &keyholev1.Selector{Node: s.Node}
	switch s.Kind {
	case probe.SelectPID:
		m.Target = &keyholev1.Selector_Pid{Pid: int32(s.PID)}
	case probe.SelectExe:
		m.Target = &keyholev1.Selector_Exe{Exe: s.Path}
	case probe.SelectKernel:
		m.Target = &keyholev1.Selector_Kernel{Kernel: true}
	}
	return m
}

func selector(m *keyholev1.Selector) (probe.Selector, error) {
	switch t := m.GetTarget().(type) {
	case *keyholev1.Selector_Pid:
		return probe.Selector{Kind: probe.SelectPID, PID: int(t.Pid), Node: m.GetNode()}, nil
	case *keyholev1.Selector_Exe:
		return probe.Selector{Kind: probe.SelectExe, Path: t.Exe, Node: m.GetNode()}, nil
	case *keyholev1.Selector_Kernel:
		if t.Kernel {
			return probe.Selector{Kind: probe.SelectKernel, Node: m.GetNode()}, nil
		}
	}
	return probe.Selector{}, invalid(errors.New("no target: name one, as in pid/4711 or exe/usr/bin/nginx"))
}

func invalid(err error) *problem.Error {
	return problem.New(problem.InvalidArgument, "%v", err)
}

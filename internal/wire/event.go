// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// ToEvent writes a hit.
func ToEvent(e *event.Event) *keyholev1.Event {
	m := &keyholev1.Event{
		SessionId: e.SessionID,
		ProbeId:   e.ProbeID,
		Node:      e.Node,
		Time:      ToTime(e.Time),
		Process: &keyholev1.Process{
			Pid:  int32(e.Process.PID),
			Tid:  int32(e.Process.TID),
			Comm: e.Process.Comm,
		},
		GoroutineId:  e.GoroutineID,
		Function:     e.Function,
		AttachPoint:  e.AttachPoint,
		DurationNs:   uint64(e.Duration),
		PolicyDigest: e.PolicyDigest,
		Stack:        e.StackLines(),
	}
	for i := range e.Results {
		m.Results = append(m.Results, toValue(&e.Results[i]))
	}
	for i := range e.Arguments {
		m.Arguments = append(m.Arguments, toValue(&e.Arguments[i]))
	}
	return m
}

func toValue(v *event.Value) *keyholev1.Value {
	m := &keyholev1.Value{
		Name: v.Name, Type: v.Type, Kind: v.Kind, Value: v.Value, Truncated: v.Truncated, Missing: v.Missing,
	}
	if v.Redaction != nil {
		m.Redaction = &keyholev1.RedactionApplied{Action: v.Redaction.Action, Rule: v.Redaction.Rule}
	}
	return m
}

// ToSummary writes the counts of a session; endedBy is empty while it runs.
func ToSummary(c event.Counts, endedBy string) *keyholev1.Summary {
	s := &keyholev1.Summary{
		Hits: c.Hits,
		// With returns a hit is a call, seen at its entry; without, a call is a hit.
		Calls:        c.Hits,
		Emitted:      c.Emitted,
		Filtered:     c.Filtered,
		SampledOut:   c.SampledOut,
		Throttled:    c.Throttled,
		OverLimit:    c.OverLimit,
		Lost:         c.Lost,
		Missed:       c.Missed,
		Delivered:    c.Delivered,
		LostToClient: c.LostToClient,
		CountsFinal:  c.Final,
		EndedBy:      endedBy,
		CostNs:       c.CostNs,
		Unpaired:     c.Unpaired.Sum(),
	}
	for reason, n := range c.Unpaired.ByReason() {
		if n > 0 {
			if s.UnpairedReasons == nil {
				s.UnpairedReasons = make(map[string]uint64)
			}
			s.UnpairedReasons[reason] = n
		}
	}
	return s
}

// ToSite writes an attach point of one process.
func ToSite(pid int, s *target.Site) *keyholev1.Site {
	return &keyholev1.Site{
		Pid: int32(pid), Address: s.RuntimeAddress, FileOffset: s.FileOffset, Bytes: s.Bytes, Where: s.Where, Return: s.Return,
	}
}

// ToTime writes a time; the zero time is no message.
func ToTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

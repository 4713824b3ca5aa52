// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"github.com/keyhole-dev/keyhole/internal/event"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// ToAggregate writes what a session has counted.
func ToAggregate(a *event.Aggregate) *keyholev1.Aggregate {
	m := &keyholev1.Aggregate{
		SessionId: a.SessionID, Node: a.Node, Time: ToTime(a.Time), Function: a.Function, Calls: a.Calls, Path: a.Path, Other: a.Other, Durations: a.Durations,
	}
	for i := range a.Groups {
		m.Groups = append(m.Groups, &keyholev1.Group{Value: toValue(&a.Groups[i].Value), Calls: a.Groups[i].Calls})
	}
	if h := a.Histogram; h != nil {
		m.Histogram = &keyholev1.Histogram{
			Scale: int32(h.Scale), Zero: h.Zero, Positive: toBuckets(h.Positive), Negative: toBuckets(h.Negative), Sum: h.Sum, Missing: h.Missing,
		}
	}
	return m
}

func toBuckets(b event.Buckets) *keyholev1.Buckets {
	return &keyholev1.Buckets{Offset: int32(b.Offset), Counts: b.Counts}
}

// FromHistogram reads a histogram; nil stays nil.
func FromHistogram(m *keyholev1.Histogram) *event.Histogram {
	if m == nil {
		return nil
	}
	buckets := func(b *keyholev1.Buckets) event.Buckets {
		return event.Buckets{Offset: int(b.GetOffset()), Counts: b.GetCounts()}
	}
	return &event.Histogram{
		Scale: int(m.GetScale()), Zero: m.GetZero(), Positive: buckets(m.GetPositive()), Negative: buckets(m.GetNegative()),
		Sum: m.GetSum(), Missing: m.GetMissing(),
	}
}

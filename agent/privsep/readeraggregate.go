// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"cmp"
	"slices"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
)

// tellAggregate tells the agent what is counted so far, if it listens.
func (r *reader) tellAggregate(c event.Counts) error {
	if r.Plan.Aggregate == probe.AggregateNone {
		return nil
	}
	a, err := r.aggregate(c)
	if err != nil {
		return err
	}
	select {
	case r.queue <- report{Aggregate: a}:
	default:
	}
	return nil
}

// aggregate reads what is counted. While the probe is on, the groups are read after the counts, and may hold a few calls more.
func (r *reader) aggregate(c event.Counts) (*event.Aggregate, error) {
	a := &event.Aggregate{SessionID: r.SessionID, Node: r.Node, Time: time.Now().UTC(), Function: r.Plan.Function, Calls: c.Emitted}
	if len(r.Plan.Fields) == 1 {
		a.Path = r.Plan.Fields[0].Path
	}
	if r.Plan.Aggregate == probe.AggregateDurations {
		a.Path, a.Durations = probe.Duration, true
	}
	switch r.Plan.Aggregate {
	case probe.AggregateGroups:
		var sum uint64
		err := r.records.Groups(func(key []byte, hits uint64) error {
			v, err := r.decoder.Group(key)
			if err != nil {
				return err
			}
			a.Groups = append(a.Groups, event.Group{Value: v, Calls: hits})
			sum += hits
			return nil
		})
		if err != nil {
			return nil, err
		}
		a.Calls = max(a.Calls, sum)
		a.Other = a.Calls - sum
		slices.SortFunc(a.Groups, func(x, y event.Group) int {
			return cmp.Or(cmp.Compare(y.Calls, x.Calls), cmp.Compare(x.Value.Value, y.Value.Value), cmp.Compare(x.Value.Missing, y.Value.Missing))
		})
	case probe.AggregateHistogram, probe.AggregateDurations:
		h, err := r.records.Histogram()
		if err != nil {
			return nil, err
		}
		a.Histogram, a.Calls = h, max(a.Calls, h.Count()+h.Missing)
	}
	return a, nil
}

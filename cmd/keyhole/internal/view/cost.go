// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/keyhole-dev/keyhole/internal/probe"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// budget is the share of a core that a session may take.
func budget(l *keyholev1.Limits) string {
	return probe.Budget(cmp.Or(l.GetBudget(), probe.DefaultBudget)).String()
}

// share writes so much of a core, in percent.
func shareOf(cores float64) string {
	switch percent := 100 * cores; {
	case percent == 0:
		return "0%"
	case percent < 0.1:
		return "under 0.1%"
	case percent < 10:
		return strconv.FormatFloat(percent, 'f', 1, 64) + "%"
	default:
		return strconv.FormatFloat(percent, 'f', 0, 64) + "%"
	}
}

// costText says what the session takes of a core at present, against what it may.
func (t *Trace) costText(now time.Time) string {
	budget := "budget " + budget(t.session.GetSpec().GetLimits())
	perSecond, known := perSecond(t.costs, now)
	if !known {
		return budget
	}
	return fmt.Sprintf("cost %s of a core, %s", shareOf(perSecond/float64(time.Second)), budget)
}

// meanCost says what a session took of a core on average over its life until now.
func meanCost(s *keyholev1.Session, sum *keyholev1.Summary, now time.Time) string {
	if s.GetAttached() == nil {
		return ""
	}
	if s.GetEnded() != nil {
		now = s.GetEnded().AsTime()
	}
	life := now.Sub(s.GetAttached().AsTime())
	if life <= 0 {
		return ""
	}
	return fmt.Sprintf("%v of processor time, %s of a core on average, budget %s",
		time.Duration(sum.GetCostNs()).Round(10*time.Microsecond), shareOf(float64(sum.GetCostNs())/float64(life)), budget(s.GetSpec().GetLimits()))
}

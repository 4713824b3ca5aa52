// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/keyhole-dev/keyhole/agent/session"
	spooled "github.com/keyhole-dev/keyhole/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// tombstoneTime is how long a probe is refused at whose attach an agent, or its machine, died.
const tombstoneTime = time.Hour

// tombstone says why a probe is not tried again; nil: nobody died of it lately.
func (r *runner) tombstone(j *job, now time.Time) error {
	details := map[string]string{}
	j.describe(details, session.RecordAboutToAttach)
	found, died := r.spool.DiedAttaching(cut(details[spooled.Function]), cut(details[spooled.Executable]))
	until := found.Add(tombstoneTime)
	if !died || !now.Before(until) {
		return nil
	}
	return problem.New(problem.FailedPrecondition,
		"this node's agent, or the machine, died while it attached to %s of this very executable (found at %s): it is refused here until %s; choose another function, "+
			"or another node", details[spooled.Function], found.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
}

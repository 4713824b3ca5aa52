// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/agent/session"
	spooled "github.com/keyhole-dev/keyhole/audit"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// record writes down one fact about a session. It holds nothing that was captured.
func (r *runner) record(f session.Record) audit.Record {
	details := map[string]string{}
	s, _ := r.machine.Session(f.SessionID)
	if j := r.jobs[f.SessionID]; j != nil {
		j.describe(details, f.Kind)
	}
	if f.Problem != nil {
		details["code"], details["error"] = f.Problem.Code, f.Problem.Message
	}
	switch f.Kind {
	case session.RecordRefused:
		if !f.Aside {
			details[spooled.EndedBy] = s.EndedBy
		}
	case session.RecordTripped:
		details["counts"], details["cost"] = countsText(s.Counts), time.Duration(s.Counts.CostNs).String()
	case session.RecordDetached:
		details[spooled.EndedBy] = f.EndedBy
		details["textRestored"] = strconv.FormatBool(s.TextRestored)
		if missed := s.Counts.Missed; missed != nil {
			details["missed"] = strconv.FormatUint(*missed, 10)
		}
		details["counts"] = countsText(s.Counts)
	}
	for key, value := range details {
		if value == "" {
			delete(details, key)
		} else {
			details[key] = cut(value)
		}
	}
	return audit.Record{
		Kind: audit.Kind(f.Kind), Time: time.Now(), SessionID: f.SessionID, Actor: r.config.identity().String(), Node: r.config.Node, Details: details,
	}
}

func countsText(c event.Counts) string {
	return fmt.Sprintf("hits=%d emitted=%d filtered=%d sampledOut=%d throttled=%d overLimit=%d lost=%d unpaired=%d final=%t",
		c.Hits, c.Emitted, c.Filtered, c.SampledOut, c.Throttled, c.OverLimit, c.Lost, c.Unpaired.Sum(), c.Final)
}

// describe says what the job knows at the time of a record of this kind.
func (j *job) describe(details map[string]string, k session.RecordKind) {
	if g := j.grant; g != nil {
		details["requester"] = g.Requester
		details["grantRevision"] = strconv.FormatInt(g.Revision, 10)
		details["intent"] = strconv.FormatUint(g.Intent.Index, 10)
		details["specDigest"] = g.Spec.Digest()
	}
	// What else there is may be read only when the state machine is past the effect that writes it.
	switch k {
	case session.RecordAboutToAttach:
		p := j.plan
		i := &p.Identity
		details["planDigest"], details["policyDigest"] = p.Digest(), p.PolicyDigest
		details[spooled.Function] = p.Function
		if i.Kernel != "" {
			details["kernel"] = i.Kernel
		} else {
			details["process"] = fmt.Sprintf("pid=%d startTicks=%d comm=%s", i.PID, i.StartTicks, i.Comm)
			details[spooled.Executable] = fmt.Sprintf("%s buildId=%s device=%d inode=%d size=%d", i.Path, i.BuildID, i.Device, i.Inode, i.Size)
		}
		details["sites"] = sitesText(p.Sites)
		details["ttl"] = j.grant.TTL.String()
	case session.RecordAttached:
		a := j.holder.Attached()
		details["planDigest"], details["programDigest"] = j.plan.Digest(), a.ProgramDigest
		details["holderPid"] = strconv.Itoa(j.holder.PID())
		details["sites"] = sitesText(a.Sites)
		details["deadlineBootNs"] = strconv.FormatUint(a.DeadlineNs, 10)
	}
}

func sitesText(sites []target.Site) string {
	var b strings.Builder
	for i, s := range sites {
		if i > 0 {
			b.WriteString(", ")
		}
		if s.Symbol != "" {
			b.WriteString(s.Symbol)
			continue
		}
		fmt.Fprintf(&b, "%#x at file offset %#x", s.RuntimeAddress, s.FileOffset)
		if s.Return && i > 0 && s.FileOffset == sites[i-1].FileOffset {
			b.WriteString(" by the kernel's return probe")
		}
	}
	return b.String()
}

// maxDetail bounds one detail of a record: a path or a symbol of a target can be long.
const maxDetail = 2048

func cut(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + "..."
}

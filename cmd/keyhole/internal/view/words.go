// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// line joins pieces of text and Spans.
func line(pieces ...any) table.Line {
	l := make(table.Line, 0, len(pieces))
	for _, p := range pieces {
		switch p := p.(type) {
		case table.Span:
			l = append(l, p)
		case string:
			l = append(l, table.Text(p))
		default:
			l = append(l, table.Text(fmt.Sprint(p)))
		}
	}
	return l
}

func bold(s string) table.Span { return table.Span{Text: s, Style: table.Bold} }
func dim(s string) table.Span  { return table.Span{Text: s, Style: table.Dim} }
func warn(s string) table.Span { return table.Span{Text: s, Style: table.Warn} }

// number writes 9064 as 9,064.
func number(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// clock writes a duration as on a stop-watch: 1:38, 1:00:00.
func clock(d time.Duration) string {
	s := max(int64(d.Round(time.Second)/time.Second), 0)
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// length writes a duration as people say it: 5 min, 90 s.
func length(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return d.Round(time.Millisecond).String()
	}
}

// size writes a number of bytes: 412 bytes, 8 MiB.
func size(n uint64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return number(n>>20) + " MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return number(n>>10) + " KiB"
	default:
		return number(n) + " bytes"
	}
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// short is the beginning of a digest, enough to tell two apart.
func short(digest string) string {
	const enough = len("sha256:") + 12
	if len(digest) <= enough {
		return digest
	}
	return digest[:enough] + "…"
}

// endings are the causes that end a session, in words.
var endings = map[string]string{
	event.EndDeadline:       "at its deadline",
	event.EndStopped:        "stopped by its owner",
	event.EndMaxHits:        "--max-hits reached",
	event.EndTargetGone:     "the process has ended",
	event.EndTargetReplaced: "the process became another program",
	event.EndForks:          "the process forks too much: each child pays for the breakpoints that it inherits",
	event.EndHolderLost:     "its holder died; the kernel detached it",
	event.EndAgentLost:      "the node's agent is gone, and the probe with it",
	event.EndRevoked:        "stopped by somebody else",
	event.EndNotAttached:    "not attached",
	event.EndTripped:        "over its budget",
	event.EndNotResumed:     "it could not be attached once more",
	event.EndAuditLost:      "the audit record of the attach could not be written",
}

// ending says why a session ended; of a cause that is not known here its name.
func ending(endedBy string) string {
	if text, known := endings[endedBy]; known {
		return text
	}
	return endedBy
}

// leaves says as what a field leaves the kernel.
func leaves(f *keyholev1.Field) table.Span {
	if f.GetMissing() != "" && f.GetMissing() != event.Redacted {
		return warn("missing: " + f.GetMissing())
	}
	a, err := redact.ParseAction(f.GetAction())
	if err != nil {
		return table.Text(f.GetAction()) // an action that a newer agent knows
	}
	switch a.Kind {
	case redact.Keep:
		return table.Text("the value")
	case redact.Drop:
		return dim("nothing (drop, never read)")
	case redact.Length:
		return dim("its length  " + hidden + "(17)")
	case redact.Digest:
		return dim("digest  #5be1c0ffee15900d")
	case redact.Detect:
		what := "secrets"
		if a.Sets != detect.All {
			what = a.Sets
		}
		return table.Text("the value, " + what + " in it overwritten  ****")
	case redact.Allow:
		return table.Text("the value, if all of it is " + strings.ReplaceAll(a.Sets, ",", " or "))
	case redact.Bucket:
		if a.N == 0 {
			return dim("its power of two  ≥65536")
		}
		return table.Text("the value; from " + number(uint64(a.N)) + " on its power of two")
	case redact.Suffix:
		return table.Text(fmt.Sprintf("last %s  %s%s", plural(a.N, "byte"), hidden, sample("4242", a.N)))
	case redact.Prefix:
		return table.Text(fmt.Sprintf("first %s  %s%s", plural(a.N, "byte"), sample("abcd", a.N), hidden))
	default:
		return table.Text(a.String())
	}
}

// sample is n bytes of a text, or all of it and a sign that there would be more.
func sample(text string, n int) string {
	if n > len(text) {
		return text + "…"
	}
	return text[:n]
}

// because says of the rules that are built in why they are.
var because = map[string]string{
	redact.RuleSecretName:     redact.RuleSecretName + ": the name means a secret; no policy lowers it",
	redact.RuleIdentifierName: redact.RuleIdentifierName + ": the name means an identifier",
	redact.RuleDefaultText:    "default for strings",
	redact.RuleStrictText:     "default for strings in the strict profile",
	redact.RuleDefaultInteger: "default for numbers of 64 bits",
	redact.RuleDefaultPointer: "default for pointers: an address helps an attacker",
	redact.RuleDefaultScalar:  "default for numbers",
	redact.RuleDefaultOther:   "default for everything else",
	redact.RuleRequest:        "--redact",
}

// reason says why a field leaves the kernel as it does.
func reason(f *keyholev1.Field) table.Span {
	if f.GetMissing() != "" && f.GetMissing() != event.Redacted {
		return dim(f.GetDetail())
	}
	text := f.GetRule()
	if why, known := because[f.GetRule()]; known {
		text = why
	}
	if f.GetDetail() != "" {
		text += "; " + f.GetDetail()
	}
	return dim(text)
}

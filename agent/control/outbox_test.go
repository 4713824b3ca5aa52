// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func reported(id string, state State, hits uint64) *keyholev1.Session {
	return &keyholev1.Session{Id: id, State: keyholev1.SessionState(state), Summary: &keyholev1.Summary{Hits: hits}}
}

func hits(id string, n int) []*keyholev1.Event {
	return slices.Repeat([]*keyholev1.Event{{SessionId: id, Function: "main.f"}}, n)
}

// drain writes what the outbox has to send, one word a message.
func drain(o *outbox) string {
	var words []string
	for m := o.next(); m != nil; m = o.next() {
		switch m := m.GetMessage().(type) {
		case *keyholev1.ConnectRequest_Report:
			s := m.Report.GetSession()
			text := fmt.Sprintf("%s=%d/%d", s.GetId(), s.GetState(), s.GetSummary().GetHits())
			if u := s.GetSummary(); u.GetDelivered()+u.GetLostToClient() > 0 {
				text += fmt.Sprintf("(%d+%d)", u.GetDelivered(), u.GetLostToClient())
			}
			words = append(words, text)
		case *keyholev1.ConnectRequest_Events:
			words = append(words, fmt.Sprintf("%dx%s", len(m.Events.GetEvents()), m.Events.GetEvents()[0].GetSessionId()))
		case *keyholev1.ConnectRequest_Answer:
			words = append(words, "answer:"+m.Answer.GetQuestionId())
		}
	}
	return strings.Join(words, " ")
}

func TestOutbox(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(o *outbox)
		want string
	}{
		{"only the newest report waits", func(o *outbox) {
			o.report(reported("a", Attaching, 0))
			o.report(reported("b", Attaching, 0))
			o.report(reported("a", Attached, 3))
		}, "a=3/3 b=2/0"},
		{"the last report comes after the events", func(o *outbox) {
			o.report(reported("a", Attached, 1))
			o.offer(hits("a", 2))
			o.report(reported("a", Ended, 2))
		}, "2xa a=5/2(2+0)"},
		{"events go in batches", func(o *outbox) {
			o.offer(hits("a", batchEvents+1))
		}, fmt.Sprintf("%dxa 1xa", batchEvents)},
		{"events beyond the bound are lost and counted", func(o *outbox) {
			o.offer(hits("a", maxEvents+7))
			for range maxEvents / batchEvents {
				o.next()
			}
			o.report(reported("a", Ended, 1))
		}, fmt.Sprintf("a=5/1(%d+7)", maxEvents)},
		{"a long event counts by its bytes", func(o *outbox) {
			long := &keyholev1.Event{SessionId: "a", Function: strings.Repeat("x", maxEventBytes/2)}
			o.offer([]*keyholev1.Event{long, long, long})
			o.report(reported("a", Ended, 1))
		}, "1xa a=5/1(1+2)"},
		{"when the stream goes reports stay, the rest goes", func(o *outbox) {
			o.report(reported("a", Attached, 1))
			o.offer(hits("a", 2))
			o.answer(&keyholev1.Answer{QuestionId: "q"})
			o.setOpen(false)
			o.offer(hits("a", 3))
			o.answer(&keyholev1.Answer{QuestionId: "r"})
			o.report(reported("a", Ended, 1))
			o.setOpen(true)
		}, "a=5/1(0+5)"},
		{"what nobody asks for is forgotten", func(o *outbox) {
			o.offer(hits("a", 1))
			o.next()
			o.forget(func(id string) bool { return id != "a" })
			o.report(reported("a", Ended, 1))
		}, "a=5/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOutbox()
			o.setOpen(true)
			c.fill(o)
			if got := drain(o); got != c.want {
				t.Errorf("sends %s; want %s", got, c.want)
			}
			if len(o.reports) > 0 || o.events > 0 || o.eventBytes > 0 {
				t.Errorf("empty, it still counts %d reports, %d events, %d bytes", len(o.reports), o.events, o.eventBytes)
			}
		})
	}
}

// TestCopiesAddUp: whatever the stream does, each live copy is delivered or lost once, and the last report says so.
func TestCopiesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newOutbox()
		var offered, sent uint64
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				o.setOpen(rapid.Bool().Draw(t, "open"))
			case 1:
				o.report(reported("a", Attached, 1))
			case 2:
				if e := o.next().GetEvents(); e != nil {
					sent += uint64(len(e.GetEvents()))
				}
			default:
				n := rapid.IntRange(0, maxEvents/2).Draw(t, "events")
				offered += uint64(n)
				o.offer(hits("a", n))
			}
		}
		o.report(reported("a", Ended, 1))
		for m := o.next(); m != nil; m = o.next() {
			sent += uint64(len(m.GetEvents().GetEvents()))
			u := m.GetReport().GetSession()
			if u.GetState() == keyholev1.SessionState(Ended) && u.GetSummary().GetDelivered()+u.GetSummary().GetLostToClient() != offered {
				t.Fatalf("%d delivered and %d lost of %d", u.GetSummary().GetDelivered(), u.GetSummary().GetLostToClient(), offered)
			}
		}
		if c := o.copiesOf("a"); c.delivered != sent {
			t.Fatalf("%d are said to be delivered; %d were sent", c.delivered, sent)
		}
	})
}

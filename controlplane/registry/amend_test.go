// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// TestAmendKeepsWhatAReportLeavesOut: an agent that closes a session of the one before it knows little of it.
func TestAmendKeepsWhatAReportLeavesOut(t *testing.T) {
	known := &keyholev1.Session{
		Id: "s-1", Spec: &keyholev1.Spec{Reason: "why"}, Requester: "ada", Node: "n", Created: timestamppb.Now(),
		State: keyholev1.SessionState_SESSION_STATE_ATTACHED, Attached: timestamppb.Now(), Function: "main.f", HolderPid: 7,
		Sites: []*keyholev1.Site{{Address: 1}, {Address: 2}}, Fields: []*keyholev1.Field{{Path: "n"}}, Summary: &keyholev1.Summary{Hits: 9},
	}
	got := amend(known, &keyholev1.Session{
		Id: "s-1", Spec: &keyholev1.Spec{Reason: "another"}, Requester: "eve", Node: "m", State: keyholev1.SessionState_SESSION_STATE_ENDED,
		Sites: []*keyholev1.Site{{Address: 3}}, Summary: &keyholev1.Summary{EndedBy: "agent_lost"},
	})
	switch {
	case got.GetSpec().GetReason() != "why" || got.GetRequester() != "ada" || got.GetNode() != "n" || got.GetCreated() == nil:
		t.Errorf("a node says what was granted: %v", got)
	case got.GetAttached() == nil || got.GetFunction() != "main.f" || got.GetHolderPid() != 7 || len(got.GetFields()) != 1 || got.GetSummary().GetHits() != 9:
		t.Errorf("what was known is gone: %v", got)
	case got.GetState() != keyholev1.SessionState_SESSION_STATE_ENDED || got.GetSummary().GetEndedBy() != "agent_lost" || len(got.GetSites()) != 1 || got.GetSites()[0].GetAddress() != 3:
		t.Errorf("what was reported is not there: %v", got)
	case known.GetState() != keyholev1.SessionState_SESSION_STATE_ATTACHED:
		t.Error("the session as it was known has changed")
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestStatus(t *testing.T) {
	for code, want := range map[string]int{
		problem.InvalidArgument: 2, problem.PermissionDenied: 3, problem.Unauthenticated: 3, problem.NotFound: 4, problem.FailedPrecondition: 7,
		problem.Unavailable: 7, problem.ResourceExhausted: 7, problem.Internal: 1, problem.Unknown: 1, problem.Aborted: 1, "NEWER_THAN_THIS": 1,
	} {
		if got := statusOf(fmt.Errorf("wrapped: %w", problem.New(code, "x"))); got != want {
			t.Errorf("%s is status %d; want %d", code, got, want)
		}
	}
	if got := statusOf(nil); got != 0 {
		t.Errorf("no error is status %d", got)
	}
	if got := statusOf(errors.New("disk full")); got != 1 {
		t.Errorf("an error of ours is status %d", got)
	}
	if got := statusOf(&client.Unreachable{Problem: problem.New(problem.Unavailable, "away")}); got != 6 {
		t.Errorf("a control plane that is away is status %d", got)
	}
}

// TestVerdict: each cause that ends a session has its status; one that is not known yet is a fault.
func TestVerdict(t *testing.T) {
	for endedBy, want := range map[string]int{
		"deadline": 0, "stopped": 0, "max_hits": 0, "target_gone": 0, "target_replaced": 0, "revoked": 3,
		"holder_lost": 1, "agent_lost": 1, "audit_lost": 1, "some_day": 1,
	} {
		s := &keyholev1.Session{Id: "s-1", Node: "n", Attached: timestamppb.Now()}
		err := verdict(s, endedBy)
		if got := statusOf(err); got != want {
			t.Errorf("%s is status %d; want %d", endedBy, got, want)
		}
		if err != nil && !strings.Contains(err.Error(), "s-1") {
			t.Errorf("%s: %q names no session", endedBy, err)
		}
	}
	for code, want := range map[string]int{problem.NotFound: 4, problem.FailedPrecondition: 7, problem.PermissionDenied: 3, problem.InvalidArgument: 2, "": 1} {
		for _, endedBy := range []string{"not_attached", "target_gone", "stopped"} {
			err := verdict(&keyholev1.Session{Id: "s-1", Error: "why not", ErrorCode: code}, endedBy)
			if got := statusOf(err); got != want || err.Error() != "why not" {
				t.Errorf("%s by %s: status %d, %v; want %d", endedBy, code, got, err, want)
			}
		}
	}
	if err := verdict(&keyholev1.Session{Id: "s-1"}, "stopped"); err != nil {
		t.Errorf("stopped by its owner before it was attached: %v", err)
	}
}

func TestComplaint(t *testing.T) {
	p := problem.New(problem.NotFound, "no function \"x\"; the nearest: main.f\n  try\x1b[2J that\n")
	p.Candidates = []string{"main.f", "main.\x07g"}
	var got []string
	for _, l := range complaint(p) {
		got = append(got, l.String())
	}
	want := []string{`keyhole: NOT_FOUND: no function "x"; the nearest: main.f`, `  try\x1b[2J that`, `  main.\x07g`}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q; want %q", got, want)
	}
}

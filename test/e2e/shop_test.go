// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// A shop is the checkout service with its load generator.
type shop struct {
	*testkit.Program
	t       *testing.T
	address string
	load    string // the load generator's executable
}

func startShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{
		t:       t,
		Program: testkit.Start(t, testkit.BuildGo(t, "test/targets/shop")),
		load:    testkit.BuildGo(t, "test/targets/shop/load"),
	}
	s.address = s.Expect("ready", 10*time.Second)
	return s
}

func (s *shop) target() string { return fmt.Sprintf("pid/%d", s.PID()) }

// buy sends checkouts and returns the load generator's line: how many answers, and the digest of all of them.
func (s *shop) buy(requests int) string {
	s.t.Helper()
	out, err := exec.Command(s.load, "-address", s.address, "-requests", fmt.Sprint(requests)).CombinedOutput()
	if err != nil {
		s.t.Fatalf("load: %v\n%s\n%s", err, out, s.Stderr())
	}
	return strings.TrimSpace(string(out))
}

// rules writes an owner's redaction rules and returns the flags that give them to `keyhole dev`.
func rules(t *testing.T, lines ...string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yaml")
	text := "version: 1\nrules:\n"
	for _, l := range lines {
		text += "  - {" + l + "}\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--redaction", file}
}

// TestAnswersAreTheSameWithAndWithoutProbes compares what the shop answers to the same requests before, during and after probes
// on the functions that the requests go through.
func TestAnswersAreTheSameWithAndWithoutProbes(t *testing.T) {
	const requests = 3000
	d := devtest.Start(t, nil, rules(t, `id: test/card, name: card, action: "suffix:4"`)...)
	s := startShop(t)
	before := s.buy(requests)
	text := testkit.ReadText(t, s.PID())

	checkout := d.Trace(s.target(), "Cart.Checkout", "--arg", "user.Email", "--arg", "user.Password", "--arg", "card", "--arg", "qty", "--arg", "total", "--rate", "1000000/s", "--for", "2m")
	charge := d.Trace(s.target(), "Gateway.Charge", "--for", "2m")
	during := s.buy(requests)
	d.MustRun("stop", "--all")
	events, sum := checkout.Finish(30 * time.Second)
	if _, sum := charge.Finish(30 * time.Second); sum.Hits == 0 {
		t.Error("the second probe was never hit")
	}
	after := s.buy(requests)

	if before != during || before != after {
		t.Errorf("the shop answered\nbefore: %s\nduring: %s\nafter:  %s", before, during, after)
	}
	if d := text.Differences(testkit.ReadText(t, s.PID())); len(d) > 0 {
		t.Errorf("the shop's text is not what it was: %v", d)
	}
	sum.RequireSum(t)
	if sum.Hits == 0 || len(events) == 0 {
		t.Fatalf("the first probe was never hit: %+v", sum)
	}
	for _, e := range events {
		card, password := e.Argument(t, "card"), e.Argument(t, "user.Password")
		if len(card.Value) != 4 || card.Redaction == nil || card.Redaction.Rule != "test/card" {
			t.Fatalf("card came as %+v; want its last four digits", card)
		}
		if password.Value != "" || password.Redaction == nil || password.Redaction.Action != "drop" {
			t.Fatalf("password came as %+v; want nothing", password)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestForkedChildrenAreListed looks at what requesters are told of children that inherit a breakpoint, and of a target with too many of them.
func TestForkedChildrenAreListed(t *testing.T) {
	d := devtest.Start(t, nil)
	p := testkit.Start(t, testkit.BuildC(t, "forks", []string{"test/targets/forks/forks.c"}, "-O2", "-g"))
	p.Expect("ready", 10*time.Second)
	tr := d.Trace(fmt.Sprintf("pid/%d", p.PID()), "forks_work", "--for", "2m")
	id := d.Sessions()[0].ID
	p.Send("fork 2")
	first, second := p.Expect("child", 10*time.Second), p.Expect("child", 10*time.Second)
	listed := regexp.MustCompile(fmt.Sprintf(`"forkedChildren":\s*\[\s*%s,\s*%s\s*\]`, first, second))
	for giveUp := time.Now().Add(10 * time.Second); !listed.MatchString(d.MustRun("sessions", "show", id, "-o", "json")); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(giveUp) {
			t.Fatalf("the children %s and %s are not listed:\n%s", first, second, d.MustRun("sessions", "show", id))
		}
	}
	p.Send("work 10")
	p.Send("call 3")
	p.Expect("called", 10*time.Second)
	p.Send("fork 40")
	events, sum := tr.Finish(30 * time.Second)
	if len(events) != 3 || sum.Hits != 3 || sum.EndedBy != "forks" {
		t.Errorf("%d events, %+v; want the 3 calls of the parent, ended by forks", len(events), sum)
	}
	if text := d.MustRun("sessions", "show", id); !strings.Contains(text, "forks too much") {
		t.Errorf("the end is told as\n%s", text)
	}
}

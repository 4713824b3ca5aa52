// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestFeaturesAreJudged(t *testing.T) {
	plain, configured := Feature{name: "it", major: 6, minor: 6}, Feature{name: "it", major: 6, minor: 6, config: "CONFIG_IT"}
	for _, c := range []struct {
		f        Feature
		release  string
		emulated bool
		may      bool
		reason   string
	}{
		{plain, "6.5.0-1-amd64", false, true, "came with Linux 6.6"},
		{plain, "5.10.0", true, true, "came with Linux 6.6"},
		{plain, "6.6.0", false, false, "not found in 6.6.0"},
		{plain, "7.0.1", true, false, "not found in 7.0.1"},
		{configured, "6.12.1", false, true, "can be built without (CONFIG_IT)"},
		{configured, "6.12.1", true, false, "not found in 6.12.1"},
		{plain, "unknown", false, false, "calls itself"},
	} {
		may, reason := c.f.judge(c.release, c.emulated)
		if may != c.may || !strings.Contains(reason, c.reason) {
			t.Errorf("%s, emulated %v: %v, %q", c.release, c.emulated, may, reason)
		}
	}
}

// TestFailedBuildIsTold: a program that does not build says why each time it is asked for, not only the first.
func TestFailedBuildIsTold(t *testing.T) {
	for range 2 {
		said := make(chan string, 1)
		r := &recorder{TB: t, said: said}
		done := make(chan struct{})
		go func() {
			defer close(done)
			BuildC(r, "none", []string{"internal/testkit/none.c"})
		}()
		<-done
		if text := <-said; !strings.Contains(text, "none.c: No such file") {
			t.Errorf("it says %q", text)
		}
	}
}

// A recorder is a test that fails without harm.
type recorder struct {
	testing.TB
	said chan string
}

func (r *recorder) Fatal(args ...any) {
	r.said <- fmt.Sprint(args...)
	runtime.Goexit()
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

func kernelSpec(function string, paths ...string) probe.Spec {
	return probe.Spec{
		Target: probe.Selector{Kind: probe.SelectKernel}, Function: function, Arguments: paths,
		Limits: probe.Limits{TTL: time.Minute, Rate: probe.MaxRate}, Reason: "test of the kernel",
	}
}

// TestKernelSession carries a session in the kernel out, or is told why this kernel cannot: by a monitor with the capabilities that it always has.
func TestKernelSession(t *testing.T) {
	s := newStage(t)
	spec := kernelSpec("do_sys_openat2", "dfd")
	if unsupported := loader.KernelSupported(); unsupported != nil {
		err := s.agent.Call("Agent.Inspect", spec.Target, new(target.Identity))
		if err == nil || !strings.Contains(err.Error(), unsupported.Error()) {
			t.Fatalf("%v; want %v", err, unsupported)
		}
		return
	}
	session, reply := s.hold(spec)
	if i := reply.Identity; i.Kernel == "" || i.PID != 0 || reply.Attached.Sites[0].Symbol != "do_sys_openat2" || reply.Attached.ProgramDigest == loader.ProgramDigest() {
		t.Errorf("%+v", reply)
	}
	const times = 50
	for range times {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	var tried []string
	s.call("Try", []string{"/etc/hosts", "/etc/hosts", "/etc/hosts"}, &tried) // what our own processes do is no hit
	ours := processes(t, s.monitor)
	s.call("Stop", session, new(struct{}))
	r := s.wait(session)
	c := r.Final.Counts
	if r.Final.EndedBy != event.EndStopped || !r.Final.TextRestored || !c.Final || c.Hits != c.Emitted+c.Lost+c.Throttled || r.Err != "" {
		t.Errorf("ended with %+v, %s", r.Final, r.Err)
	}
	mine := 0
	for _, e := range r.Events {
		if e.Process.PID == os.Getpid() {
			mine++
		}
		if slices.Contains(ours, e.Process.PID) {
			t.Errorf("our own process is seen: %+v", e)
		}
	}
	if mine < times {
		t.Errorf("%d of %d calls were seen", mine, times)
	}
}

// TestKernelIsJudged: neither a grant for a process nor one beyond the node's list attaches to the kernel.
func TestKernelIsJudged(t *testing.T) {
	s := newStage(t)
	if loader.KernelSupported() != nil {
		t.Skip("the kernel is refused before anybody judges: ", loader.KernelSupported())
	}
	for what, c := range map[string]struct {
		asked, granted probe.Spec
		says           string
	}{
		"not on the list": {kernelSpec("commit_creds"), kernelSpec("commit_creds"), "not on its list"},
		"a process's":     {kernelSpec("do_sys_openat2"), specOf(os.Getpid(), time.Minute), "it is not for"},
		"another's":       {kernelSpec("do_sys_openat2"), kernelSpec("do_exit"), "not what the inspector found"},
		"memory":          {kernelSpec("do_sys_openat2", "how.flags"), kernelSpec("do_sys_openat2", "how.flags"), "probes in the kernel may read none"},
	} {
		session := s.newSession()
		err := s.agent.Call("Agent.Hold", HoldArgs{Session: session, Spec: c.asked, Envelope: s.authority.grant(session, c.granted)}, new(HoldReply))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", what, err, c.says)
		}
	}
}

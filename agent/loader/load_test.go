// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

func TestLoadRefuses(t *testing.T) {
	p := startHot(t)
	good := compile(t, p, request{function: "hot_pair", values: hot.Pair()})
	now := BootNow()
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"no deadline", Options{}, "latest one 0"},
		{"later than the latest", Options{LatestDeadlineNs: now, DeadlineNs: now + 1}, "after the latest"},
		{"an odd ring", Options{LatestDeadlineNs: now, RingBytes: 3 * os.Getpagesize()}, "power of two"},
		{"a small ring", Options{LatestDeadlineNs: now, RingBytes: os.Getpagesize() / 2}, "at least a page"},
		{"a huge ring", Options{LatestDeadlineNs: now, RingBytes: 1 << 40}, "power of two"},
	} {
		if _, err := Load(good, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	bad := *good
	bad.Ops = append([]plan.Op{{Code: plan.OpEmit, Src: 9, Arg: 8}}, good.Ops...)
	if _, err := Load(&bad, Options{LatestDeadlineNs: now}); err == nil || !strings.Contains(err.Error(), "verify plan") {
		t.Errorf("a plan that does not verify: %v", err)
	}
}

// TestKernelRefusesBadPlans hands the kernel plans that this side would not let through: it proves each plan too.
func TestKernelRefusesBadPlans(t *testing.T) {
	p := startHot(t)
	o := Options{LatestDeadlineNs: BootNow(), RingBytes: os.Getpagesize(), PerfEvents: true}
	for name, spoil := range map[string]func(ops []plan.Op){
		"a slot beyond the stack":    func(ops []plan.Op) { ops[0].Dst = 200 },
		"a load of more than a word": func(ops []plan.Op) { ops[0] = plan.Op{Code: plan.OpLoad, Arg: 200} },
	} {
		t.Run(name, func(t *testing.T) {
			bad := compile(t, p, request{function: "hot_pair", values: hot.Pair()})
			spoil(bad.Ops)
			loaded, err := load(bad, o)
			if err == nil {
				loaded.Close()
				t.Fatal("loaded")
			}
			var refused *VerifierError
			if !errors.As(err, &refused) {
				t.Fatal(err)
			}
			if text := err.Error(); strings.Contains(text, "\n") || len(text) > 1000 || len(refused.Log) < 10 {
				t.Errorf("a summary of %d bytes and a log of %d lines: %s", len(text), len(refused.Log), text)
			}
		})
	}
}

func TestAttachRefuses(t *testing.T) {
	p := startHot(t)
	good := compile(t, p, request{function: "hot_pair"})
	deadline := BootNow() + uint64(time.Minute)
	for _, c := range []struct {
		name  string
		spoil func(*plan.Plan)
		want  string
	}{
		{"a site in the header", func(bad *plan.Plan) { bad.Sites[0].FileOffset = 0 }, "offset 0"},
		{"nobody", func(bad *plan.Plan) { bad.Identity.PID = 0 }, "no process named"},
		{"a process that is gone", func(bad *plan.Plan) { bad.Identity.PID = gone(t) }, "any more"},
	} {
		bad := *good
		bad.Sites = append([]target.Site(nil), good.Sites...)
		c.spoil(&bad)
		program, err := Load(&bad, Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, PerfEvents: true})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := program.Attach(p.Exe); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
			if err == nil {
				a.Close()
			}
		}
		program.Close()
	}
}

// gone is the number of a process that has ended.
func gone(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// TestShapes loads plans of every size and holds what the verifier needs for each far below its million instructions.
func TestShapes(t *testing.T) {
	p := startHot(t)
	strings := func(n int) (values []target.Value) {
		for i := range n {
			values = append(values, hot.String(fmt.Sprintf("s%d.text", i), hot.Argument(0, 8, int64(8*i)), hot.Argument(0, 8, int64(8*i+8))))
		}
		return values
	}
	cstrings := func(n int) (values []target.Value) {
		for i := range n {
			values = append(values, hot.CString(fmt.Sprintf("s%d.text", i), hot.Argument(0, 8, int64(8*i))))
		}
		return values
	}
	numbers := func(n int) (values []target.Value) {
		for i := range n {
			values = append(values, hot.Scalar(fmt.Sprintf("n%d", i), target.KindInt, 4, hot.Argument(0, int64(4*i))))
		}
		return values
	}
	for _, c := range []struct {
		name string
		request
	}{
		{"nothing", request{}},
		{"one register", request{function: "hot_pair", values: hot.Pair()[:1]}},
		{"a register and a string", request{function: "hot_pair", values: hot.Pair()}},
		{"a register and a digest", request{function: "hot_pair", values: hot.Pair(), redact: "digest"}},
		{"20 numbers", request{values: numbers(20)}},
		{"20 strings", request{values: strings(20)}},
		{"20 digests", request{values: strings(20), redact: "digest"}},
		{"20 suffixes", request{values: strings(20), redact: "suffix:4"}},
		{"20 C strings", request{values: cstrings(20)}},
		{"20 suffixes of C strings", request{values: cstrings(20), redact: "suffix:4"}},
		{"20 detections", request{values: strings(20), redact: "detect:all"}},
		{"20 detections in C strings", request{values: cstrings(20), redact: "detect:card,email"}},
		{"20 allowances", request{values: strings(20), redact: "allow:ipv4,ipv6"}},
		{"20 buckets", request{values: numbers(20), redact: "bucket:1000"}},
		{"three long strings", request{values: strings(3), limits: probe.Limits{ValueBytes: probe.MaxValueBytes}}},
		{"three long digests", request{values: strings(3), redact: "digest", limits: probe.Limits{ValueBytes: probe.MaxValueBytes}}},
		{"conditions", request{values: append(numbers(8), strings(4)...), where: `n0 > 1 && n1 < 2 && n2 == 3 && s0.text == "a" && s1.text != "b"`}},
	} {
		if c.function == "" {
			c.function = "hot_deep"
		}
		s := attach(t, p, c.request)
		took := s.program.LoadTime
		t.Logf("%-26s %2d ops %7d instructions, loaded in %v", c.name, len(s.program.plan.Ops), s.program.Instructions, took.Round(time.Millisecond))
		most := uint32(200_000)
		switch {
		case c.redact == "detect:all" || c.redact == "detect:card,email":
			most = 800_000 // some verifiers prove the loops over a value turn by turn, once for each program
		case !HasUprobeMulti():
			most = 400_000 // its verifier prunes less
		}
		if s.program.Instructions > most {
			t.Errorf("%s: the verifier processed %d instructions", c.name, s.program.Instructions)
		}
		s.Close()
	}
}

func TestSupported(t *testing.T) {
	startHot(t)
	testkit.Need(t, testkit.UprobeMulti)
	if err := Supported(false); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(ProgramDigest(), "sha256:") || len(ProgramDigest()) != 7+64 {
		t.Error(ProgramDigest())
	}
}

// TestSupportedWithoutPrivilege runs this test again as nobody and wants to be told what that lacks.
func TestSupportedWithoutPrivilege(t *testing.T) {
	const nobody = 65534
	if os.Geteuid() == nobody {
		err := Supported(false)
		if err == nil || !strings.Contains(err.Error(), "capabilities BPF and PERFMON") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
		return
	}
	startHot(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := "/dev/shm/" + fmt.Sprintf("loader-test-%d", os.Getpid()) // where nobody may look: go test's own directory is closed
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	cmd := exec.Command(path, "-test.run=^TestSupportedWithoutPrivilege$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSupportedWithoutPrivilege") {
		t.Errorf("%v\n%s", err, out)
	}
}

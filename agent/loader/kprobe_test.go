// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A kernelRequest is what a test asks of a probe of the kernel.
type kernelRequest struct {
	function string
	paths    []string
	results  []string
	errors   probe.Errors
	where    string
	limits   probe.Limits
	leaveOut int
}

// kernelPlan makes a real plan for a function of the running kernel, whose memory may be read and all of whose text is kept.
func kernelPlan(t testing.TB, r kernelRequest) *plan.Plan {
	t.Helper()
	testkit.Need(t, testkit.KernelTypes)
	types, err := os.Open(kbtf.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer types.Close()
	spec := &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectKernel}, Function: r.function, Arguments: r.paths, Where: r.where,
		Results: r.results, Errors: r.errors, Limits: r.limits, Reason: "test",
	}
	if spec.Limits.Rate == 0 {
		spec.Limits.Rate = probe.MaxRate
	}
	allowed := policy.Default().Kernel
	allowed.ReadMemory = true
	tgt, err := resolve.InKernel(resolve.KernelInput{BTF: types, Identity: target.Identity{Kernel: "running", Comm: "kernel"}, Allowed: allowed}, spec)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := redact.Shipped().WithOwner([]redact.Rule{
		{ID: "test/text", Match: redact.Match{Type: "*char*"}, Action: redact.Action{Kind: redact.Keep}},
		{ID: "test/pointer", Match: redact.Match{Type: "struct *"}, Action: redact.Action{Kind: redact.Keep}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Compile(spec, tgt, rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loadKernel(t testing.TB, p *plan.Plan, leaveOut int) *Program {
	t.Helper()
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
	deadline := BootNow() + uint64(10*time.Minute)
	program, err := Load(p, Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, LeaveOut: leaveOut})
	if err != nil {
		var refused *VerifierError
		if errors.As(err, &refused) {
			t.Log(strings.Join(refused.Log, "\n"))
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// needKprobes skips a test of a kernel's functions where there are none to probe.
func needKprobes(t testing.TB) {
	t.Helper()
	testkit.Need(t, append(testkit.Processes, testkit.Kprobes)...)
	if err := KernelSupported(); lockedDown() {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// attachToKernel carries a request out on a kernel that has kprobes.
func attachToKernel(t testing.TB, r kernelRequest) *session {
	t.Helper()
	needKprobes(t)
	p := kernelPlan(t, r)
	program := loadKernel(t, p, r.leaveOut)
	attachment, err := program.Attach(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := OpenReader(files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	reader.CountsMissed = attachment.CountsMissed
	meta := decode.Meta{Wall: func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }}
	return &session{Reader: reader, program: program, decoder: decode.New(p, meta)}
}

// argument is a value of an event by its name.
func argument(t testing.TB, e *event.Event, name string) event.Value {
	t.Helper()
	for _, v := range e.Arguments {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no %s in %+v", name, e)
	return event.Value{}
}

// mine are the events of this process.
func mine(events []event.Event) []event.Event {
	var own []event.Event
	for _, e := range events {
		if e.Process.PID == os.Getpid() {
			own = append(own, e)
		}
	}
	return own
}

// TestKprobeLoads: the kernel takes the program for each function of the default list, with all of its parameters and what is behind some.
func TestKprobeLoads(t *testing.T) {
	testkit.Need(t, testkit.KernelTypes)
	types, err := os.Open(kbtf.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer types.Close()
	l, err := resolve.KernelFunctions(resolve.KernelInput{BTF: types, Allowed: policy.Default().Kernel}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range l.Functions {
		if i%(len(l.Functions)/testkit.Scale(len(l.Functions))) != 0 {
			continue // an emulated processor takes half a second for each
		}
		program := loadKernel(t, kernelPlan(t, kernelRequest{function: f.Name}), 1)
		if program.Digest() == ProgramDigest() {
			t.Errorf("%s was loaded with the program for processes", f.Name)
		}
		program.Close()
	}
	deep := kernelPlan(t, kernelRequest{
		function: "tcp_connect",
		paths:    []string{"sk.__sk_common.skc_dport", "sk.__sk_common.skc_daddr", "sk.__sk_common.skc_prot.name", "sk.sk_socket.file.f_flags"},
		where:    `sk.__sk_common.skc_family == 2 && sk.__sk_common.skc_prot.name == "TCP"`,
	})
	loadKernel(t, deep, 1)
	loadKernel(t, kernelPlan(t, kernelRequest{function: "do_sys_openat2", paths: []string{"filename", "how.flags"}, where: `filename == "/etc/shadow"`}), 1)
}

// TestKprobeRefuses: a kernel without kprobes says so, and leaves nothing behind that another way of attaching would.
func TestKprobeRefuses(t *testing.T) {
	unsupported := KernelSupported()
	switch {
	case unsupported == nil:
		t.Skip("this kernel has kprobes")
	case lockedDown():
		t.Skip("it refuses to load the program already: ", unsupported)
	}
	program := loadKernel(t, kernelPlan(t, kernelRequest{function: "tcp_connect"}), 1)
	if _, err := program.Attach(nil); err == nil || !strings.Contains(err.Error(), unsupported.Error()) {
		t.Errorf("%v; want %v", err, unsupported)
	}
}

// TestKprobeOpen sees this process open a file: a number in a register, text in this process's memory, a number in the kernel's.
func TestKprobeOpen(t *testing.T) {
	s := attachToKernel(t, kernelRequest{function: "do_sys_openat2", paths: []string{"dfd", "filename", "how.flags", "how"}})
	name := filepath.Join(t.TempDir(), "seen through a keyhole")
	const times = 10
	for range times {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var seen []event.Event
	for _, e := range mine(s.events(t)) {
		if argument(t, &e, "filename").Value == name {
			seen = append(seen, e)
		}
	}
	if len(seen) != times {
		t.Fatalf("%d of %d calls were seen", len(seen), times)
	}
	for _, e := range seen {
		flags, err := strconv.ParseInt(argument(t, &e, "how.flags").Value, 10, 64)
		if want := int64(os.O_CREATE | os.O_WRONLY | os.O_TRUNC); err != nil || flags&want != want {
			t.Errorf("flags are %d, %v", flags, err)
		}
		if dfd := argument(t, &e, "dfd").Value; dfd != "-100" { // AT_FDCWD
			t.Errorf("dfd is %s", dfd)
		}
		if how := argument(t, &e, "how"); how.Value != "" || how.Missing != event.Redacted || how.Redaction.Rule != redact.RuleKernelAddress {
			t.Errorf("an address of the kernel's: %+v", how)
		}
		if e.Function != "do_sys_openat2" || e.Process.TID == 0 || e.Process.Comm == "" {
			t.Errorf("%+v", e)
		}
	}
	detaching := time.Now()
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	t.Logf("detached in %v", time.Since(detaching))
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if late := mine(s.events(t)); len(late) > 0 {
		t.Errorf("after the detach: %+v", late)
	}
	c, err := s.Counts()
	if err != nil || !c.Final || c.Hits != c.Emitted+c.Lost || c.Hits < times {
		t.Errorf("%+v, %v", c, err)
	}
	if has := countsMissed(); has != (c.Missed != nil) {
		t.Errorf("the kernel counts what it missed: %v; the count is %v", has, c.Missed)
	}
}

// TestKprobeReturns sees what calls return and how long they took; and, of calls that succeed and fail, those that failed.
func TestKprobeReturns(t *testing.T) {
	const times = 10
	name := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string, works bool) {
		for range times {
			f, err := os.Open(name)
			if (err == nil) != works {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	t.Run("all", func(t *testing.T) {
		s := attachToKernel(t, kernelRequest{function: "do_sys_openat2", paths: []string{"filename"}, results: []string{"r0", probe.Duration}})
		open(name, true)
		open(name+" not", false)
		found, missing := 0, 0
		for _, e := range mine(s.events(t)) {
			r0 := e.Results[0]
			switch argument(t, &e, "filename").Value {
			case name:
				if n, err := strconv.Atoi(r0.Value); err != nil || n <= 0 {
					t.Errorf("the file was opened as %+v", r0)
				}
				found++
			case name + " not":
				if r0.Value != "-2" { // ENOENT
					t.Errorf("the file that is not there was opened as %+v", r0)
				}
				missing++
			default:
				continue
			}
			if e.Duration <= 0 || e.Duration > time.Minute {
				t.Errorf("it took %v", e.Duration)
			}
		}
		if found != times || missing != times {
			t.Errorf("%d and %d of %d calls were seen", found, missing, times)
		}
	})
	t.Run("failures", func(t *testing.T) {
		s := attachToKernel(t, kernelRequest{
			function: "do_sys_openat2", paths: []string{"filename"}, results: []string{"r0"}, errors: probe.ErrorsOnly,
		})
		open(name, true)
		open(name+" not", false)
		for _, e := range mine(s.events(t)) {
			if got := argument(t, &e, "filename").Value; got == name {
				t.Errorf("a call that did not fail: %+v", e.Results)
			}
		}
		if err := s.Detach(); err != nil {
			t.Fatal(err)
		}
		c, err := s.Counts()
		if err != nil || c.Emitted < times || c.Filtered < times || c.Hits != c.Emitted+c.Filtered+c.Lost+c.Unpaired.Sum() {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// TestKprobeConnect sees a connection through the kernel's own structs.
func TestKprobeConnect(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := attachToKernel(t, kernelRequest{
		function: "tcp_connect",
		paths:    []string{"sk.__sk_common.skc_dport", "sk.__sk_common.skc_family", "sk.__sk_common.skc_prot.name"},
		where: fmt.Sprintf(`sk.__sk_common.skc_family == 2 && sk.__sk_common.skc_prot.name == "TCP" && sk.__sk_common.skc_dport == %d`,
			l.Addr().(*net.TCPAddr).Port),
	})
	const times = 5
	for range times {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	seen := mine(s.events(t))
	if len(seen) != times {
		t.Fatalf("%d of %d connections were seen", len(seen), times)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, e := range seen {
		if got := argument(t, &e, "sk.__sk_common.skc_dport").Value; got != port {
			t.Errorf("the port is %s; want %s", got, port)
		}
		if got := argument(t, &e, "sk.__sk_common.skc_prot.name").Value; got != "TCP" {
			t.Errorf("the protocol is %q", got)
		}
	}
}

// TestKprobeScope: a process that is left out is not seen with its children, and everybody else is.
func TestKprobeScope(t *testing.T) {
	s := attachToKernel(t, kernelRequest{function: "do_exit", paths: []string{"code"}, leaveOut: os.Getpid()})
	if err := exec.Command("/bin/sh", "-c", "exit 7").Run(); err == nil {
		t.Fatal("the shell did not say 7")
	}
	// The shell's child has another parent than this process.
	if err := exec.Command("/bin/sh", "-c", "(exit 9); true").Run(); err != nil {
		t.Fatal(err)
	}
	codes := make(map[string]int)
	for _, e := range s.events(t) {
		codes[argument(t, &e, "code").Value]++
	}
	if codes[fmt.Sprint(7<<8)] != 0 || codes[fmt.Sprint(9<<8)] == 0 {
		t.Errorf("exits by code: %v", codes)
	}
}

// TestKprobeLimits: the deadline and the limits are the same code as those of probes in processes; here that they are in this program too.
func TestKprobeLimits(t *testing.T) {
	s := attachToKernel(t, kernelRequest{function: "do_sys_openat2", paths: []string{"dfd"}, limits: probe.Limits{MaxHits: 3}})
	open := func(n int) {
		for range n {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	open(20)
	c, err := s.Counts()
	if err != nil || c.Emitted != 3 || c.OverLimit < 17 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := s.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	before, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	open(20)
	if after, err := s.Counts(); err != nil || after.Hits != before.Hits {
		t.Errorf("%d hits after the deadline, %v", after.Hits-before.Hits, err)
	}
}

// TestKprobeAttachFails: a function that there is not, or that the kernel keeps from probes.
func TestKprobeAttachFails(t *testing.T) {
	needKprobes(t)
	good := kernelPlan(t, kernelRequest{function: "tcp_connect"})
	for symbol, says := range map[string]string{"no_such_function": "no function no_such_function", "kprobe_dispatcher": "kprobe_dispatcher"} {
		bad := *good
		bad.Function = symbol
		bad.Sites = []target.Site{{Symbol: symbol, Where: "entry"}}
		program := loadKernel(t, &bad, 1)
		if a, err := program.Attach(nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", symbol, err)
			if a != nil {
				a.Close()
			}
		}
	}
}

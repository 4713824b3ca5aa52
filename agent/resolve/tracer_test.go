// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A tracer stops a program's first thread at sites and reads values there, as the eBPF program does, by ptrace: so that
// what resolve says can be compared with what the program passed, without a kernel's help.
type tracer struct {
	t       *testing.T
	program *testkit.Program
	pid     int
	sites   map[uint64]*traced
}

type traced struct {
	target *target.Target
	text   []byte // under the breakpoint
}

// A hit is one stop: the values by path.
type hit struct {
	function string
	values   map[string]string
}

// startTraced starts a program that waits for its first line, stopped at its first instruction. The calling goroutine stays
// on its thread, which is the tracer.
func startTraced(t *testing.T, exe string) *tracer {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	cmd := exec.Command(exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	p := testkit.StartCommand(t, cmd)
	tr := &tracer{t: t, program: p, pid: p.PID(), sites: make(map[uint64]*traced)}
	if s := tr.wait(); !s.Stopped() {
		t.Fatalf("the program did not stop at its begin: %#x", s)
	}
	return tr
}

func (tr *tracer) wait() syscall.WaitStatus {
	tr.t.Helper()
	var s syscall.WaitStatus
	for {
		_, err := syscall.Wait4(tr.pid, &s, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			tr.t.Fatalf("wait: %v", err)
		}
		return s
	}
}

func (tr *tracer) set(target *target.Target) {
	tr.t.Helper()
	at := target.Sites[0].RuntimeAddress
	s := &traced{target: target}
	found := make([]byte, len(target.Sites[0].Bytes))
	tr.read(found, at)
	if string(found) != string(target.Sites[0].Bytes) {
		tr.t.Fatalf("%s: the process has % x at %#x, the site says % x", target.Function.Name, found, at, target.Sites[0].Bytes)
	}
	s.text = found[:len(testkit.Breakpoint)]
	tr.sites[at] = s
	tr.write(at, testkit.Breakpoint)
}

func (tr *tracer) read(b []byte, at uint64) bool {
	n, err := syscall.PtracePeekData(tr.pid, uintptr(at), b)
	return err == nil && n == len(b)
}

func (tr *tracer) write(at uint64, b []byte) {
	tr.t.Helper()
	if _, err := syscall.PtracePokeText(tr.pid, uintptr(at), b); err != nil {
		tr.t.Fatalf("write text: %v", err)
	}
}

// round lets the program make one round of calls and returns what was seen and what it said that it passed.
func (tr *tracer) round() (hits []hit, lines []string) {
	tr.t.Helper()
	tr.program.Send("go")
	done := make(chan []string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var said []string
		for line := range tr.program.Lines() {
			if line == "ready" {
				continue
			}
			if line == "done" {
				done <- said
				return
			}
			said = append(said, line)
		}
	}()
	tr.cont(0)
	for {
		var s syscall.WaitStatus
		pid, err := syscall.Wait4(tr.pid, &s, syscall.WNOHANG, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			tr.t.Fatalf("wait: %v", err)
		}
		if pid == 0 || err != nil {
			select {
			case lines := <-done:
				<-ended
				tr.stop()
				return hits, lines
			case <-time.After(200 * time.Microsecond):
			}
			continue
		}
		switch {
		case s.Exited() || s.Signaled():
			tr.t.Fatalf("the program ended: %#x\n%s", s, tr.program.Stderr())
		case s.StopSignal() == syscall.SIGTRAP:
			if h, ok := tr.atSite(); ok {
				hits = append(hits, h)
			}
			tr.cont(0)
		default:
			tr.cont(int(s.StopSignal())) // Go's preemption, for one
		}
	}
}

// stop stops the program, which waits for its next line, takes the breakpoints out and lets it go.
func (tr *tracer) stop() {
	tr.t.Helper()
	if err := syscall.Kill(tr.pid, syscall.SIGSTOP); err != nil {
		tr.t.Fatal(err)
	}
	tr.wait()
	for at, s := range tr.sites {
		tr.write(at, s.text)
	}
	if err := syscall.PtraceDetach(tr.pid); err != nil {
		tr.t.Fatal(err)
	}
	_ = syscall.Kill(tr.pid, syscall.SIGCONT)
}

func (tr *tracer) cont(signal int) {
	tr.t.Helper()
	if err := syscall.PtraceCont(tr.pid, signal); err != nil {
		tr.t.Fatalf("continue: %v", err)
	}
}

// atSite reads the values of the site that the thread stopped at, and steps over it.
func (tr *tracer) atSite() (hit, bool) {
	tr.t.Helper()
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tr.pid, &regs); err != nil {
		tr.t.Fatal(err)
	}
	pc := uint64(int64(*counter(&regs)) - behindBreakpoint)
	s, ok := tr.sites[pc]
	if !ok {
		return hit{}, false
	}
	*counter(&regs) = pc
	h := hit{function: s.target.Function.Name, values: make(map[string]string)}
	for _, v := range s.target.Values {
		h.values[v.Path] = tr.value(&v, &regs)
	}
	if g := s.target.GoroutineID; g != nil {
		h.values["goroutine"] = tr.value(g, &regs)
	}
	tr.write(pc, s.text)
	if err := syscall.PtraceSetRegs(tr.pid, &regs); err != nil {
		tr.t.Fatal(err)
	}
	for {
		if err := syscall.PtraceSingleStep(tr.pid); err != nil {
			tr.t.Fatal(err)
		}
		tr.wait()
		var after syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(tr.pid, &after); err != nil {
			tr.t.Fatal(err)
		}
		if *counter(&after) != pc {
			break // else a signal came first
		}
	}
	tr.write(pc, testkit.Breakpoint)
	return h, true
}

// value reads a value as the ops do that a plan makes of it.
func (tr *tracer) value(v *target.Value, regs *syscall.PtraceRegs) string {
	if v.Missing != "" {
		return "missing: " + v.Missing
	}
	data, why := tr.location(v.Data, v.Size, regs)
	if why != "" {
		return why
	}
	switch v.Kind {
	case target.KindInt:
		shift := 64 - 8*v.Size
		return strconv.FormatInt(int64(data<<shift)>>shift, 10)
	case target.KindUint, target.KindPointer, target.KindLength:
		if v.Size < 8 {
			data &= 1<<(8*v.Size) - 1
		}
		return strconv.FormatUint(data, 10)
	case target.KindBool:
		return strconv.FormatBool(data&0xff != 0)
	case target.KindFloat:
		if v.Size == 4 {
			return fmt.Sprint(math.Float32frombits(uint32(data)))
		}
		return fmt.Sprint(math.Float64frombits(data))
	case target.KindString, target.KindBytes:
		n, why := tr.location(v.Length, 8, regs)
		if why != "" {
			return why
		}
		if n > 1<<16 {
			return "bad length"
		}
		b := make([]byte, n)
		if n > 0 && !tr.read(b, data) {
			return "fault"
		}
		return strconv.Quote(string(b))
	case target.KindCString:
		if data == 0 {
			return "nil pointer"
		}
		var text []byte
		for at := data + uint64(v.Offset); v.Capacity == 0 || len(text) < v.Capacity; at++ {
			var b [1]byte
			if !tr.read(b[:], at) {
				return "fault"
			}
			if b[0] == 0 {
				break
			}
			text = append(text, b[0])
		}
		return strconv.Quote(string(text))
	}
	return "kind " + string(v.Kind)
}

func (tr *tracer) location(l target.Location, size int, regs *syscall.PtraceRegs) (value uint64, why string) {
	value = numbered(regs, l.Register) >> (8 * l.Shift)
	for i, offset := range l.Offsets {
		if value == 0 {
			return 0, "nil pointer"
		}
		var b [8]byte
		n := 8
		if i == len(l.Offsets)-1 {
			n = size
		}
		if !tr.read(b[:n], value+uint64(offset)) {
			return 0, "fault"
		}
		value = binary.LittleEndian.Uint64(b[:])
	}
	return value, ""
}

// A call is a line of a target: "call NAME PATH=VALUE ...".
type call struct {
	name   string
	values map[string]string
}

func parseCall(t *testing.T, line string) call {
	t.Helper()
	rest, ok := strings.CutPrefix(line, "call ")
	if !ok {
		t.Fatalf("unexpected line %q", line)
	}
	c := call{values: make(map[string]string)}
	c.name, rest, _ = strings.Cut(rest, " ")
	for rest != "" {
		path, value, ok := strings.Cut(rest, "=")
		if !ok {
			t.Fatalf("unexpected %q in %q", rest, line)
		}
		if quoted, err := strconv.QuotedPrefix(value); err == nil {
			rest = strings.TrimPrefix(value[len(quoted):], " ")
			text, _ := strconv.Unquote(quoted)
			if value = strconv.Quote(text); text == "nil pointer" {
				value = text
			}
		} else {
			value, rest, _ = strings.Cut(value, " ")
		}
		c.values[path] = value
	}
	return c
}

// calls lets a program make one round and returns what it says that it passed.
func calls(t *testing.T, exe string) []call {
	t.Helper()
	p := testkit.Start(t, exe)
	p.Expect("ready", 10*time.Second)
	p.Send("go")
	var list []call
	for {
		line := p.Line(10 * time.Second)
		if line == "done" {
			p.CloseInput()
			return list
		}
		list = append(list, parseCall(t, line))
	}
}

func requirePtrace(t *testing.T) {
	t.Helper()
	if b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(b)) == "3" {
		t.Skip("ptrace is switched off on this machine")
	}
}

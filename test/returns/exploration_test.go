// SPDX-License-Identifier: Apache-2.0

package returns_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestExploration puts probes on the entries and returns of function after function of test binaries that are not ours, some dozens at
// a time, and lets their own tests run: they must say what they say without probes. KEYHOLE_EXPLORE is how many functions of each binary
// are probed; `make test-exploration` sets it to all.
func TestExploration(t *testing.T) {
	testkit.RequireRoot(t)
	functions := 40
	packages := []string{"encoding/json"}
	if os.Getenv("KEYHOLE_EXPLORE") != "" {
		functions = 1 << 20
		packages = []string{"encoding/json", "net/http", "database/sql", "text/template", "compress/flate"}
	}
	probed := 0
	for _, name := range packages {
		t.Run(name, func(t *testing.T) { probed += explore(t, name, functions) })
	}
	t.Logf("%d functions were probed at entry and return", probed)
	if os.Getenv("KEYHOLE_EXPLORE") != "" && probed < 2000 {
		t.Errorf("only %d functions were probed", probed)
	}
}

// atOnce is how many functions have probes during one run of a binary's tests.
const atOnce = 60

func explore(t *testing.T, name string, most int) int {
	exe := filepath.Join(t.TempDir(), "stranger.test")
	if out, err := exec.Command("go", "test", "-c", "-o", exe, name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	run := func(attach func(pid int)) map[string]string {
		return outcomes(t, exe, strings.TrimSpace(string(dir)), attach)
	}
	want := run(func(int) {})
	if len(want) == 0 {
		t.Fatal("the binary has no tests")
	}
	var (
		queue        []string
		done         int
		calls, pairs uint64
		refused      = make(map[string]int)
	)
	symbols := functionsOf(t, exe, name)
	if len(symbols) > most { // some of every part
		step := len(symbols) / most
		var some []string
		for i := 0; i < len(symbols) && len(some) < most; i += step {
			some = append(some, symbols[i])
		}
		symbols = some
	}
	for queue = range slices.Chunk(symbols, atOnce) {
		var list []*tracing
		got := run(func(pid int) {
			in, _ := inputOf(t, pid)
			for _, function := range queue {
				tr, err := quiet(t, in, pid, function)
				if err != nil {
					refused[reasonOf(err)]++
					continue
				}
				list = append(list, tr)
			}
		})
		for _, tr := range list {
			n := tr.counts()
			calls += n.Hits
			pairs += n.Emitted + n.Throttled
			if n.Unpaired.NoRoom > 0 {
				t.Errorf("%s: %+v", tr.plan.Function, n)
			}
			if err := tr.reader.Close(); err != nil {
				t.Error(err)
			}
			done++
		}
		for test, result := range want {
			if got[test] != result {
				t.Errorf("%s: %q without probes, %q with probes on %s", test, result, got[test], strings.Join(queue, " "))
			}
		}
	}
	t.Logf("%s: %d tests, %d functions probed, %d calls seen; refused: %v", name, len(want), done, calls, refused)
	if done == 0 || calls == 0 {
		t.Errorf("%d functions probed, %d calls seen", done, calls)
	}
	return done
}

// quiet attaches a probe whose events nobody reads: two a second are let out.
func quiet(t *testing.T, in resolve.Input, pid int, function string) (*tracing, error) {
	s := spec(pid, function, func(s *probe.Spec) { s.Results, s.Limits.Rate = []string{probe.Duration}, 2 })
	p, err := compile(t, in, s)
	if err != nil {
		// Of a function whose arguments cannot be listed the calls can be seen.
		return nil, err
	}
	return attach(t, p, pid)
}

func attach(t *testing.T, p *plan.Plan, pid int) (*tracing, error) {
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	deadline := loader.BootNow() + uint64(time.Hour)
	program, err := loader.Load(p, loader.Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: 64 << 10, PerfEvents: true})
	if err != nil {
		t.Errorf("%s: %v", p.Function, err)
		return nil, err
	}
	defer program.Close()
	attachment, err := program.Attach(exe)
	if err != nil {
		return nil, err
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		return nil, err
	}
	reader, err := loader.OpenReader(files)
	if err != nil {
		return nil, err
	}
	return &tracing{t: t, plan: p, reader: reader, ended: true}, nil
}

var numbers = regexp.MustCompile(`\+?0x[0-9a-f]+|\d+|\([^)]*\)`)

// reasonOf is why a function was refused, without what is its alone.
func reasonOf(err error) string {
	_, text, found := strings.Cut(problem.Of(err).Message, ": ")
	if !found {
		text = err.Error()
	}
	text, _, _ = strings.Cut(numbers.ReplaceAllString(text, "N"), ";")
	return text
}

// functionsOf lists the functions of a package and of what it calls.
func functionsOf(t *testing.T, exe, name string) []string {
	t.Helper()
	out, err := exec.Command("go", "tool", "nm", exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) < 3 || words[1] != "T" && words[1] != "t" {
			continue
		}
		symbol := strings.Join(words[2:], " ")
		for _, prefix := range []string{name + ".", name + "/", "reflect.", "strconv.", "fmt.", "bytes.", "strings.", "bufio.", "sync.", "io.", "net/textproto.", "testing."} {
			if strings.HasPrefix(symbol, prefix) && !strings.HasSuffix(symbol, ".abi0") {
				list = append(list, symbol)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// startStopped starts a program that stands still before its first instruction, until it is told to go on.
func startStopped(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	runtime.LockOSThread() // who traces is a thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil || !status.Stopped() {
		t.Fatalf("the program does not stand still: %v, %#x", err, status)
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(cmd.Process.Pid), 0, uintptr(unix.SIGSTOP), 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}

// outcomes runs a test binary, which a probe is put on before its first instruction, and says how each of its tests ended.
func outcomes(t *testing.T, exe, dir string, attach func(pid int)) map[string]string {
	t.Helper()
	cmd := exec.Command(exe, "-test.v", "-test.short", "-test.count=1", "-test.timeout=10m", "-test.parallel=2")
	cmd.Dir = dir
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = io.Discard
	startStopped(t, cmd)
	attach(cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	results := make(map[string]string)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "--- "); ok {
			if result, test, ok := strings.Cut(rest, ": "); ok {
				test, _, _ = strings.Cut(test, " ")
				results[test] = result
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	results["exit status"] = cmd.ProcessState.String()
	return results
}

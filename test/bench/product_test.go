// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// agent measures memory at rest and with one session, and what an event costs the agent's processes.
func agent(t *testing.T, n size) []row {
	t.Helper()
	d := devtest.Start(t, nil)
	vault := startVault(t)
	time.Sleep(n.idle)
	idle := resident(t, d.ProcessID("keyhole-agent")) + resident(t, d.ProcessID("keyhole-monitor"))

	tr := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--arg", "note", "--arg", "n", "--rate", "1000000/s", "--for", "5m")
	processes := []int{d.ProcessID("keyhole-agent"), d.ProcessID("keyhole-monitor"), d.ProcessID("kh-holder")}
	time.Sleep(n.idle) // as at the idle agent: what only starting touched is given back
	holder := resident(t, processes[2])
	events := n.hits / 10
	before := cpu(t, processes)
	vault.Send(fmt.Sprintf("call %d", events))
	vault.Expect("called", 5*time.Minute)
	for testkit.RingPending(t, processes[2]) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(n.idle) // until the events are out of the agent's hands
	spent := cpu(t, processes) - before
	d.MustRun("stop", "--all")
	_, sum := tr.Finish(time.Minute)
	if sum.Emitted == 0 {
		t.Fatalf("no event was emitted: %+v", sum)
	}
	return []row{
		{"idle: agent and monitor, resident", mib(idle), "< 50 MiB", "two processes of one file; shared pages counted twice"},
		{"a session's holder, resident", mib(holder), "< 32 MiB", "the same"},
		{"CPU for an event, agent, monitor and holder", fmt.Sprintf("%.1f µs", float64(spent.Microseconds())/float64(sum.Emitted)), "", fmt.Sprintf("%d events, watched by a client", sum.Emitted)},
	}
}

// firstEvent measures from the start of the command to its first event, for a function that is called all the time.
func firstEvent(t *testing.T, n size) []row {
	t.Helper()
	d := devtest.Start(t, nil)
	shop := testkit.Start(t, testkit.BuildGo(t, "test/targets/shop"))
	address := shop.Expect("ready", 10*time.Second)
	testkit.Start(t, testkit.BuildGo(t, "test/targets/shop/load"), "-address", address, "-requests", "1000000", "-rate", "200")
	target := fmt.Sprintf("pid/%d", shop.PID())
	var ours []time.Duration
	for range n.starts {
		ours = append(ours, untilFirstLine(t, d.Command("trace", "-o", "json", target, "Cart.Checkout", "--arg", "qty", "--max-hits", "1", "--for", "30s"), `{"event"`))
	}
	rows := []row{{
		"keyhole trace, p50 and p99", fmt.Sprintf("%d ms, %d ms", percentile(ours, 50).Milliseconds(), percentile(ours, 99).Milliseconds()),
		"p50 < 300 ms", fmt.Sprintf("of %d; mutual TLS, two durable audit records and a proof before the attach", n.starts),
	}}
	if path := bpftrace(); path != "" {
		var theirs []time.Duration
		script := fmt.Sprintf(`uprobe:/proc/%d/exe:"main.(*Cart).Checkout" { printf("hit %%d\n", reg("r9")); exit(); }`, shop.PID())
		for range n.bpftrace {
			theirs = append(theirs, untilFirstLine(t, exec.Command(path, "-p", strconv.Itoa(shop.PID()), "-e", script), "hit "))
		}
		rows = append(rows, row{"bpftrace, p50", fmt.Sprintf("%d ms", percentile(theirs, 50).Milliseconds()), "", fmt.Sprintf("of %d", n.bpftrace)})
	}
	return rows
}

// bigBinary measures the same for sessions on a program of more than 100 MB: the Caddy web server with all of its debug information.
func bigBinary(t *testing.T, n size) []row {
	t.Helper()
	path := filepath.Join(t.TempDir(), "caddy")
	build := exec.Command("go", "build", "-ldflags=-compressdwarf=false", "-o", path, ".")
	build.Dir = filepath.Join(testkit.Root(t), "test/foreign/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build Caddy: %v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	const address = "127.0.0.1:18431"
	serve := exec.Command(path, "respond", "--listen", address, "--body", "hello")
	serve.Env = append(serve.Environ(), "HOME="+t.TempDir())
	caddy := testkit.StartCommand(t, serve)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		client := &http.Client{Timeout: time.Second}
		defer client.CloseIdleConnections()
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if r, err := client.Get("http://" + address + "/"); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		}
	})
	defer asking.Wait()
	defer close(stop)
	d := devtest.Start(t, nil)
	var took []time.Duration
	for range n.starts {
		took = append(took, untilFirstLine(t, d.Command("trace", "-o", "json", fmt.Sprintf("pid/%d", caddy.PID()), "caddyhttp.(*Server).ServeHTTP",
			"--arg", "r.Method", "--max-hits", "1", "--for", "30s"), `{"event"`))
	}
	note := fmt.Sprintf("Caddy of %d MB", info.Size()/1_000_000)
	return []row{
		{"keyhole trace of a big program, the first", fmt.Sprintf("%d ms", took[0].Milliseconds()), "< 2000 ms", note},
		{"the next ones, p50", fmt.Sprintf("%d ms", percentile(took[1:], 50).Milliseconds()), "< 150 ms", fmt.Sprintf("of %d", len(took)-1)},
	}
}

// startVault starts the target with a string of 16 bytes.
func startVault(t *testing.T) *testkit.Program {
	t.Helper()
	vault := testkit.Start(t, testkit.BuildGo(t, "test/targets/vault"))
	vault.Expect("ready", 10*time.Second)
	vault.Send("secret 0123456789abcdef")
	vault.Expect("ok", 10*time.Second)
	return vault
}

// untilFirstLine runs a command to its end and returns how long its first line with this beginning took.
func untilFirstLine(t *testing.T, cmd *exec.Cmd, beginning string) time.Duration {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if took == 0 && strings.HasPrefix(lines.Text(), beginning) {
			took = time.Since(begin)
		}
	}
	err = cmd.Wait() // bpftrace has been seen to end with status 1 after it did its work
	if took == 0 {
		t.Fatalf("%s: no line %q: %v\n%s", strings.Join(cmd.Args, " "), beginning, err, stderr.String())
	}
	return took
}

// resident is a process's memory in RAM, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int
	if _, err := fmt.Sscan(string(data), &total, &pages); err != nil {
		t.Fatalf("statm: %v", err)
	}
	return pages * os.Getpagesize()
}

func mib(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// cpu is what processes have used so far, in user and kernel mode.
func cpu(t *testing.T, pids []int) time.Duration {
	t.Helper()
	var ticks int
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for _, f := range fields[11:13] { // utime and stime: fields 14 and 15 of proc_pid_stat(5)
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatalf("stat: %v", err)
			}
			ticks += n
		}
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 in the kernel's ABI
	return time.Duration(ticks) * tick
}

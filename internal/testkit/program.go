// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built holds the programs that this test binary has built, by what they were built from.
var built struct {
	sync.Mutex
	dir      string
	programs map[string]program
}

// A program is an executable, or why it could not be built.
type program struct {
	path string
	err  error
}

// BuildGo builds the command of this module with the import path relative to the module's root ("test/targets/shop") once for
// all tests of a package, without cgo, and returns the executable's path. Flags go to `go build`. Main removes it.
func BuildGo(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	return buildOnce(t, GoProgram(pkg, flags...))
}

// BuildC compiles C files of this repository, named from its root, once for all tests of a package, and returns the
// executable's path. Flags go to gcc, before the files; none means -O2 -g. Main removes it.
func BuildC(t testing.TB, name string, files []string, flags ...string) string {
	t.Helper()
	if len(flags) == 0 {
		flags = []string{"-O2", "-g"}
	}
	return buildOnce(t, CProgram(name, files, flags...))
}

func buildOnce(t testing.TB, s Source) string {
	t.Helper()
	if dir := os.Getenv(programsEnvironment); dir != "" {
		path := s.in(dir)
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s: %v: %v", s, errNoProgram, err)
		}
		return path
	}
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "keyhole-test-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.programs = dir, make(map[string]program)
	}
	p, known := built.programs[s.String()]
	if !known {
		p.path = s.in(built.dir)
		p.err = s.build(Root(t), p.path, s.command(p.path))
		built.programs[s.String()] = p
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

func removeBuilt() error {
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		return nil
	}
	return os.RemoveAll(built.dir)
}

// Root is the directory of this module's go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

// A Program is a child process that a test talks to by lines: what it is held at a gate with, and what it answers.
type Program struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	reap  sync.Once
	ended chan struct{} // closed when the process was waited for

	mu     sync.Mutex
	stderr bytes.Buffer
}

// Start starts an executable and kills it when the test ends.
func Start(t testing.TB, path string, args ...string) *Program {
	t.Helper()
	return StartCommand(t, exec.Command(path, args...))
}

// StartCommand is Start for a command whose directory or environment the caller has set.
func StartCommand(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	p := &Program{t: t, cmd: cmd, lines: make(chan string, 1024), ended: make(chan struct{})}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &lockedWriter{mu: &p.mu, w: &p.stderr}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		scanner := bufio.NewScanner(out)
		scanner.Buffer(nil, 16<<20)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// PID is the process's number.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Send writes one line to the program's standard input.
func (p *Program) Send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("write to %s: %v\n%s", p.name(), err, p.Stderr())
	}
}

// Line returns the next line of the program's standard output and fails the test if none comes in time.
func (p *Program) Line(within time.Duration) string {
	p.t.Helper()
	line, err := p.next(within)
	if err != nil {
		p.t.Fatalf("read from %s: %v\n%s", p.name(), err, p.Stderr())
	}
	return line
}

// Expect reads lines until one begins with the prefix, and returns that line without the prefix and the space behind it.
func (p *Program) Expect(prefix string, within time.Duration) string {
	p.t.Helper()
	deadline := time.Now().Add(within)
	for {
		line, err := p.next(time.Until(deadline))
		if err != nil {
			p.t.Fatalf("wait for %q from %s: %v\n%s", prefix, p.name(), err, p.Stderr())
		}
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

// Lines hands out the rest of standard output; it is closed at its end.
func (p *Program) Lines() <-chan string { return p.lines }

func (p *Program) next(within time.Duration) (string, error) {
	select {
	case line, ok := <-p.lines:
		if !ok {
			return "", io.EOF
		}
		return line, nil
	case <-time.After(within):
		return "", fmt.Errorf("nothing within %v", within.Round(time.Millisecond))
	}
}

// Stderr is what the program has written to standard error so far.
func (p *Program) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// Signal sends the process a signal.
func (p *Program) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.name(), err)
	}
}

// CloseInput ends the program's standard input.
func (p *Program) CloseInput() { p.in.Close() }

// Wait waits for the program's end, fails the test if it does not come in time, and returns the exit status (-1 for
// an end by a signal). What it still writes to standard output is read and thrown away.
func (p *Program) Wait(within time.Duration) int {
	p.t.Helper()
	p.startReaping()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("%s did not end within %v\n%s", p.name(), within, p.Stderr())
		return -1
	}
}

// startReaping reads standard output to its end, which Wait of the command would cut off, and then waits.
func (p *Program) startReaping() {
	p.reap.Do(func() {
		go func() {
			for range p.lines {
			}
			_ = p.cmd.Wait() // the exit status is in ProcessState
			close(p.ended)
		}()
	})
}

func (p *Program) kill() {
	p.in.Close()
	_ = p.cmd.Process.Kill() // an error says that it has ended already
	p.startReaping()
	<-p.ended
}

func (p *Program) name() string { return filepath.Base(p.cmd.Path) }

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

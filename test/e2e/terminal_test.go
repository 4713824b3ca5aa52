// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestAtATerminal does what a person does: answers a question, looks at the table, presses Ctrl-C.
func TestAtATerminal(t *testing.T) {
	d := devtest.Start(t, nil, rules(t, "id: test/note, name: note, action: keep")...)
	vault := startVault(t)
	target := fmt.Sprintf("pid/%d", vault.PID())

	t.Run("trace", func(t *testing.T) {
		p := atTerminal(t, d, "trace", target, "main.Open", "--arg", "note", "--arg", "n")
		p.await("Why? This goes on record: ")
		p.send("INC-9 too slow\n")
		p.await("Ctrl-C detaches")
		vault.Send("secret \x1b[2J\u009b31mred")
		vault.Line(10 * time.Second)
		vault.Send("call 2")
		vault.Line(10 * time.Second)
		p.await(`\x1b[2J\u009b31mred`)
		if shown := d.Sessions(); len(shown) != 1 {
			t.Errorf("%d sessions go on", len(shown))
		} else if reason := d.MustRun("sessions", "show", shown[0].ID); !strings.Contains(reason, "INC-9 too slow") {
			t.Errorf("the reason is not on record:\n%s", reason)
		}
		p.send("\x03")
		p.await("keyhole audit show s-")
		if status := p.wait(); status != 0 {
			t.Errorf("Ctrl-C is status %d", status)
		}
		out := p.output()
		if strings.Contains(out, "\x1b[2J") || strings.Contains(out, "\u009b") {
			t.Errorf("a value of the target commands the terminal: %q", out)
		}
		if strings.Count(out, "\x1b[1mTIME") != 1 || !strings.Contains(out, "stopped by its owner") {
			t.Errorf("the screen shows %q", out)
		}
		// The status is redrawn in its place: no line of it stays.
		for line := range strings.Lines(out) {
			if text := line[strings.LastIndex(strings.TrimRight(line, "\r\n"), "\r")+1:]; strings.Contains(text, "Ctrl-C detaches") {
				t.Errorf("a status line stays on the screen: %q", line)
			}
		}
	})
	t.Run("no answer", func(t *testing.T) {
		p := atTerminal(t, d, "trace", target, "main.Open")
		p.await("Why?")
		p.send("\n")
		if status := p.wait(); status != 2 {
			t.Errorf("no reason is status %d: %q", status, p.output())
		}
	})
	t.Run("which function", func(t *testing.T) {
		p := atTerminal(t, d, "trace", target, "Write", "--reason", "one of them", "--for", "1s")
		p.await("Which? ")
		_, list, _ := strings.Cut(p.output(), "name one of them")
		number, name := "", "os.(*File).Write"
		for line := range strings.Lines(list) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[1] == name {
				number = fields[0]
			}
		}
		p.send(number + "\n")
		p.await("attached 1/1")
		if status := p.wait(); status != 0 || !strings.Contains(p.output(), name+"\x1b[m   vault[") {
			t.Errorf("status %d, the screen shows %q", status, p.output())
		}
	})
}

// A person is one at a terminal with a running command.
type person struct {
	t        *testing.T
	cmd      *exec.Cmd
	terminal *os.File
	read     sync.WaitGroup

	mu  sync.Mutex
	out bytes.Buffer
}

// atTerminal runs a command that nobody has told why, on a terminal of 100 columns.
func atTerminal(t *testing.T, d *devtest.Dev, args ...string) *person {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(terminal.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, cmd: d.Command(args...), terminal: terminal}
	p.cmd.Env = append(p.cmd.Env, "KEYHOLE_REASON=", "TERM=xterm-256color", "NO_COLOR=")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = line, line, line
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line.Close()
	p.read.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			p.mu.Lock()
			p.out.Write(buffer[:n])
			p.mu.Unlock()
			if err != nil {
				return // EIO: the command has ended
			}
		}
	})
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error says that it has ended
		p.read.Wait()
		terminal.Close()
	})
	return p
}

func (p *person) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *person) send(keys string) {
	p.t.Helper()
	if _, err := p.terminal.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// await waits until the screen has shown something.
func (p *person) await(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(p.output(), text) {
			return
		}
	}
	p.t.Fatalf("the screen never showed %q: %q", text, p.output())
}

func (p *person) wait() int {
	p.t.Helper()
	p.read.Wait() // the terminal hangs up when the command ends
	if err := p.cmd.Wait(); p.cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

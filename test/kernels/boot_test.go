// SPDX-License-Identifier: Apache-2.0

package kernels_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long one kernel may take for everything.
const patience = 12 * time.Minute

// machines are the emulated ones. Every processor feature that the emulator has is on; pointer authentication by its real algorithm would
// take most of the time. The two processors of a machine take turns: side by side they run code that the kernel has just rewritten as it was
// before, now and then, and a kernel that meets its own breakpoint there dies.
var machines = map[string][]string{
	"amd64": {"qemu-system-x86_64", "-M", "q35", "-cpu", "max"},
	"arm64": {"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"},
}

var consoles = map[string]string{"amd64": "ttyS0", "arm64": "ttyAMA0"}

// boot starts a kernel, runs the jobs whose names begin so, and returns what it wrote to its console until it switched itself off.
func boot(t *testing.T, arch, kernel, initramfs, jobs string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	machine := machines[arch]
	// Tests write to the text of their own targets, which Debian's kernels from 6.12 on allow to debuggers alone.
	parameters := "console=" + consoles[arch] + " loglevel=4 panic=-1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_timeout=300 mitigations=off proc_mem.force_override=always JOBS=" + jobs
	cmd := exec.CommandContext(ctx, machine[0], append(machine[1:len(machine):len(machine)],
		"-accel", "tcg,thread=single", "-smp", "2", "-m", "2G", "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", kernel, "-initrd", initramfs, "-append", parameters)...)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves no machine behind
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end within %v", patience)
	}
	text := strings.ReplaceAll(console.String(), "\r", "")
	if err != nil || !strings.Contains(text, "\n"+mark+"off\n") {
		t.Errorf("the kernel did not switch itself off: %v\n%s", err, tail(text, 60))
	}
	return text
}

// mark is what init's lines begin with.
const mark = "=== keyhole: "

// A part is what one job wrote, and how it ended.
type part struct{ output, ended string }

// A report is what is to be read from a console.
type report struct {
	release    string
	parts      map[string]part
	complaints []string // of the kernel's or of init's
}

func readConsole(text string) report {
	r := report{parts: make(map[string]part)}
	var name string
	var output strings.Builder
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, mark), "\n"), " ")
		switch {
		case !strings.HasPrefix(line, mark):
			output.WriteString(line)
		case word == "linux":
			r.release = rest
		case word == "begin":
			name = rest
			output.Reset()
			r.parts[name] = part{ended: "has not ended"}
		case word == "end":
			r.parts[name] = part{output.String(), strings.TrimPrefix(rest, name+" ")}
		case word == "kernel", word == "failed":
			r.complaints = append(r.complaints, rest)
		}
	}
	if p, ok := r.parts[name]; ok && p.output == "" {
		r.parts[name] = part{output.String(), p.ended}
	}
	return r
}

// An outcome is how one test of a guest's ended.
type outcome struct {
	name, action string // "pass", "fail" or "skip"; "run" for what did not end
	output       string
	seconds      float64
}

// outcomes reads what a test binary wrote. Subtests belong to their tests.
func outcomes(pkg, output string) ([]outcome, error) {
	cmd := exec.Command("go", "tool", "test2json", "-t", "-p", pkg)
	cmd.Stdin = strings.NewReader(output)
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	var all []outcome
	index := make(map[string]int)
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		name, _, isSub := strings.Cut(e.Test, "/")
		if name == "" {
			continue
		}
		i, known := index[name]
		if !known {
			i = len(all)
			index[name] = i
			all = append(all, outcome{name: name, action: "run"})
		}
		switch {
		case e.Action == "output":
			all[i].output += e.Output
		case !isSub && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			all[i].action, all[i].seconds = e.Action, e.Elapsed
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func kernelOf(cache, arch, series string) string {
	return filepath.Join(cache, arch, series, "vmlinuz")
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// What an inspector may use. The executable that it reads may be made to cost more.
const (
	inspectorCPU    = 10 * time.Second
	inspectorMemory = 256 << 20
)

// inspectorEnvironment says nothing of a crash but its first line: the rest is the parser's stack, of interest to whoever
// made the executable.
var inspectorEnvironment = append([]string{"GOTRACEBACK=none", "GOMAXPROCS=2"}, raceEnvironment...)

type resolved struct {
	Problem *problem.Error `json:"problem,omitempty"`
	Target  *target.Target `json:"target,omitempty"`
}

type listed struct {
	Problem *problem.Error   `json:"problem,omitempty"`
	Listing *resolve.Listing `json:"listing,omitempty"`
}

// runInspector answers questions about one executable until nobody asks any more.
func runInspector() error {
	for fd := firstDescriptor; fd <= firstDescriptor+3; fd++ {
		unix.CloseOnExec(fd)
	}
	if err := confineInspector(); err != nil {
		return err
	}
	runtime.UnlockOSThread()
	agent := newConn(firstDescriptor, "agent")
	var h handed
	if err := takeOver(firstDescriptor+1, &h); err != nil {
		return err
	}
	exe := os.NewFile(firstDescriptor+2, "executable")
	if h.Symbols {
		return answerSymbols(agent, exe, h.Identity.Size)
	}
	in := h.input(exe)
	for {
		var q question
		if _, err := agent.receive(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("hear from agent: %w", err)
		}
		if err := agent.send(inspectFor(in, h.OtherProcesses, q, firstDescriptor+3)); err != nil {
			return fmt.Errorf("answer agent: %w", err)
		}
	}
}

// An input is what an inspector answers questions about.
type input interface {
	resolve(spec *probe.Spec) (*target.Target, error)
	functions(pattern string, limit int) (*resolve.Listing, error)
}

type processInput struct{ resolve.Input }

func (in processInput) resolve(spec *probe.Spec) (*target.Target, error) {
	return resolve.Resolve(in.Input, spec)
}

func (in processInput) functions(pattern string, limit int) (*resolve.Listing, error) {
	return resolve.Functions(in.Input, pattern, limit)
}

type kernelInput struct{ resolve.KernelInput }

func (in kernelInput) resolve(spec *probe.Spec) (*target.Target, error) {
	return resolve.InKernel(in.KernelInput, spec)
}

func (in kernelInput) functions(pattern string, limit int) (*resolve.Listing, error) {
	return resolve.KernelFunctions(in.KernelInput, pattern, limit)
}

func (h *handed) input(file *os.File) input {
	if h.Kernel != nil {
		return kernelInput{resolve.KernelInput{BTF: file, Identity: h.Identity, Allowed: *h.Kernel}}
	}
	return processInput{resolve.Input{Exe: file, Maps: h.Maps, Identity: h.Identity}}
}

// inspectFor answers one question. An error becomes part of the answer. Of a Target the monitor is told first.
func inspectFor(in input, others int, q question, monitor int) any {
	switch {
	case q.Resolve != nil:
		t, err := in.resolve(q.Resolve)
		if err == nil {
			t.OtherProcesses = others
			err = vouch(monitor, q.Resolve, t)
		}
		if err != nil {
			t = nil
		}
		return resolved{Problem: problem.Of(err), Target: t}
	case q.Functions != nil:
		l, err := in.functions(q.Functions.Pattern, q.Functions.Limit)
		return listed{Problem: problem.Of(err), Listing: l}
	default:
		return resolved{Problem: problem.New(problem.InvalidArgument, "a question that asks for nothing")}
	}
}

// confineInspector gives up what is left to a process without capabilities, before a byte of the executable is read.
func confineInspector() error {
	if err := requireNoPrivilege(); err != nil {
		return err
	}
	if err := hide(); err != nil {
		return err
	}
	cpu := uint64(inspectorCPU / time.Second)
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: cpu, Max: cpu}); err != nil {
		return fmt.Errorf("limit processor time: %w", err)
	}
	if !raceDetector { // which reserves more address space than any limit of use
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: inspectorMemory, Max: inspectorMemory}); err != nil {
			return fmt.Errorf("limit memory: %w", err)
		}
	}
	debug.SetMemoryLimit(inspectorMemory / 4 * 3) // collect before the limit is met
	return inspectorPolicy().install()
}

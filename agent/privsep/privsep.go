// SPDX-License-Identifier: Apache-2.0

// Package privsep puts the stages of the pipeline into processes, so that no process has both a network and a
// privilege, and none that parses a target's bytes has either. One executable is all of them:
//
//   - the monitor is the parent. It holds the capabilities and no network. It opens what is inspected, checks grants,
//     starts the others, knows which breakpoints are ours, and kills what does not end in time;
//   - the agent has the network, the node's identity and the sessions. It has no capability, and Landlock bounds its files;
//   - an inspector resolves a request on descriptors that the monitor opened. It has no capability and can open nothing;
//   - a holder carries out one session. As loader it loads and attaches; then it executes itself as reader, without
//     any privilege, and reads events. The kernel detaches when it ends, however it ends: nothing is pinned.
//
// All but the monitor die with the monitor, and everything ends when the agent ends.
package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Names of the processes, as /proc/PID/comm and argv[0] show them.
const (
	monitorName   = "keyhole-monitor"
	agentName     = "keyhole-agent"
	inspectorName = "kh-inspector"
	holderName    = "kh-holder"
)

// A role is what this executable was started as: the first argument. It is distinct from the process's name because
// the command keyhole-agent and the process of that name are not the same, and a holder has two roles.
type role string

const (
	roleStart     role = "@start"   // becomes the monitor
	roleMonitor   role = "@monitor" // [settings]
	roleAgent     role = "@agent"   // [socket, arguments...]
	roleInspector role = "@inspect" // [socket, subject, executable]
	roleChecker   role = "@check"   // checkerArgs, [socket]
	roleSubject   role = "@subject" // [socket]
	roleLoader    role = "@load"    // [monitor, agent, executable]
	roleReader    role = "@read"    // [what the loader hands over]
)

// Roles are the parts of a process that are not this package's.
type Roles struct {
	// Agent runs as the networked process until ctx is done or it fails. Its arguments are Options.AgentArgs.
	Agent func(ctx context.Context, c *Client, args []string) error
}

func init() {
	if len(os.Args) > 1 && currentRole() != "" {
		// Here the goroutine is on the process's first thread, whose name is the process's.
		runtime.LockOSThread()
		if err := nameThread(filepath.Base(os.Args[0])); err != nil {
			fatal(err)
		}
	}
}

// currentRole is empty in a process that a person started.
func currentRole() role {
	if len(os.Args) < 2 {
		return ""
	}
	switch r := role(os.Args[1]); r {
	case roleStart, roleMonitor, roleAgent, roleInspector, roleChecker, roleSubject, roleLoader, roleReader:
		return r
	default:
		return ""
	}
}

// Main makes this process what it was started as and exits. In a process that was not started by this package it returns at
// once. It belongs first into main, before flags are read or files opened.
func Main(roles Roles) {
	r := currentRole()
	if r == "" {
		return
	}
	var err error
	switch r {
	case roleStart:
		err = startMonitor()
	case roleMonitor:
		err = runMonitor()
	case roleAgent:
		err = runAgent(roles)
	case roleInspector:
		err = runInspector()
	case roleChecker:
		err = runChecker()
	case roleSubject:
		err = runSubject()
	case roleLoader:
		err = runLoader()
	case roleReader:
		err = runReader()
	}
	if err != nil {
		fatal(err)
	}
	os.Exit(0)
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
	os.Exit(1)
}

// The first descriptors of a child, in the order in which spawn was given them.
const firstDescriptor = 3

// descriptorArgument is the number behind the role, of a descriptor that an exec kept.
func descriptorArgument() (int, error) {
	if len(os.Args) != 3 {
		return -1, errors.New("start: not by hand")
	}
	fd, err := strconv.Atoi(os.Args[2])
	if err != nil || fd < firstDescriptor {
		return -1, fmt.Errorf("start: no descriptor %q", os.Args[2])
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// runAgent is the networked process.
func runAgent(roles Roles) error {
	runtime.UnlockOSThread()
	if roles.Agent == nil {
		return errors.New("start agent: this executable has none")
	}
	if err := requireNoPrivilege(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	image, err := findImage()
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	image.releaseSoon()
	conn := newConn(firstDescriptor, "monitor")
	unix.CloseOnExec(firstDescriptor)
	conn.acceptFiles()
	var h hello
	if _, err := conn.receive(&h); err != nil {
		return fmt.Errorf("hear from monitor: %w", err)
	}
	landlock, err := confineAgent(h.StateDir, h.ReadOnly, h.OldKernel)
	if err != nil {
		return err
	}
	if err := agentPolicy(landlock).install(); err != nil {
		return fmt.Errorf("confine agent: %w", err)
	}
	client := newClient(conn)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-client.done
		cancel(client.err)
	}()
	err = roles.Agent(ctx, client, os.Args[2:])
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

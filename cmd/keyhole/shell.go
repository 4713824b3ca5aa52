// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// callTime bounds a call that is answered from what the control plane knows, questionTime one that a node works on.
const (
	callTime     = 15 * time.Second
	questionTime = 60 * time.Second
)

// A shell is where a command runs: its streams, its environment, and what the flags of all commands say.
type shell struct {
	stdin, stdout, stderr *os.File
	out, err              *table.Printer
	environment           []string

	config       string // --config
	controlPlane string // --control-plane
}

func newShell() *shell {
	return &shell{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environment: os.Environ(),
		out: table.NewPrinter(os.Stdout, os.Environ()), err: table.NewPrinter(os.Stderr, os.Environ()),
	}
}

// execute runs a command line and returns the exit status.
func (sh *shell) execute(args []string) int {
	root := sh.root()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return statusFine
	}
	if _, ours := errors.AsType[*problem.Error](err); !ours {
		err = invalid("%s; keyhole --help lists the commands", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	// Nobody is left to tell if standard error cannot be written.
	_ = sh.err.Print(complaint(err)...)
	return statusOf(err)
}

// run makes a command's errors problems, so that they can be told from those of the command line, which are cobra's.
func run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		if _, ours := errors.AsType[*problem.Error](err); err == nil || ours {
			return err
		}
		return problem.Of(err)
	}
}

// variable is a variable of the environment.
func (sh *shell) variable(name string) string {
	value := ""
	for _, e := range sh.environment {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// isTerminal says whether a stream is one that a person sits at.
func (sh *shell) isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && sh.variable("TERM") != "dumb"
}

// configPath is where the configuration file is, and whether somebody said so.
func (sh *shell) configPath() (path string, said bool, err error) {
	for _, said := range []string{sh.config, sh.variable("KEYHOLE_CONFIG")} {
		if said != "" {
			return said, true, nil
		}
	}
	path, err = client.DefaultPath()
	return path, false, err
}

// context finds the control plane that is meant: the current context, or that of the address which --control-plane or
// KEYHOLE_CONTROL_PLANE names. An address that no context has is reached with the current context's credentials.
func (sh *shell) context() (client.Context, error) {
	path, said, err := sh.configPath()
	if err != nil {
		return client.Context{}, problem.New(problem.InvalidArgument, "%v: say --config FILE", err)
	}
	config, err := client.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !said:
		return client.Context{}, &client.Unreachable{Problem: problem.New(problem.Unavailable, "no control plane is known: there is no %s\n"+
			"  on this machine, `sudo keyhole dev` starts one and writes that file; else name one by --config FILE or KEYHOLE_CONFIG", path)}
	case errors.Is(err, fs.ErrPermission):
		return client.Context{}, problem.New(problem.PermissionDenied, "%v: the file is somebody else's; one that `sudo keyhole dev` wrote is root's", err)
	case err != nil:
		return client.Context{}, invalid("%v", err)
	}
	current, found := config.Find(config.Current)
	address := sh.controlPlane
	if address == "" {
		address = sh.variable("KEYHOLE_CONTROL_PLANE")
	}
	if address == "" {
		if !found {
			return client.Context{}, invalid("%s: no context is the current one; keyhole context use NAME makes one so", path)
		}
		return current, nil
	}
	for _, c := range config.Contexts {
		if c.ControlPlane == address {
			return c, nil
		}
	}
	if !found {
		return client.Context{}, invalid("%s knows no control plane at %s, and no current context whose certificate could be shown to it", path, address)
	}
	current.ControlPlane = address
	return current, nil
}

// dial prepares the connection to the control plane that is meant.
func (sh *shell) dial() (*client.Client, error) {
	c, err := sh.context()
	if err != nil {
		return nil, err
	}
	return client.Dial(c)
}

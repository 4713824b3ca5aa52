// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// openKernel opens the running kernel for questions: its BTF takes the place of an executable, and there is no process, no
// memory to compare, and nothing that ends. The error says why this kernel cannot be probed.
func openKernel() (*subject, error) {
	if err := loader.KernelSupported(); err != nil {
		return nil, problem.New(problem.FailedPrecondition, "%v", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("name of the kernel: %w", err)
	}
	types, err := os.Open(kbtf.Path)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's types: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	s := &subject{identity: target.Identity{Kernel: release, Comm: "kernel", Path: "the kernel " + release}, exe: types}
	s.users.Store(1)
	return s, nil
}

func (s *subject) isKernel() bool { return s.identity.Kernel != "" }

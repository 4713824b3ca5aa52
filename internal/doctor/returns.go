// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/procfs"
)

// RefuseReturn says why a probe on the return of a function would harm a process of this status on this node; empty: it
// would not. Such a probe replaces the return address on the stack by one of the kernel's own: Go programs die of it in
// any case, and are none of this function's business.
func (r *Report) RefuseReturn(s procfs.Status) string {
	if o, text := r.SelfTest.Outcome(CheckReturn); o != Pass {
		return "this node's kernel harms processes with a probe on a return: " + or(text, "the self-test did not look")
	}
	if o, text := r.SelfTest.Outcome(CheckReturnSeccomp); o != Pass {
		filtered := "the process may have its system calls filtered (seccomp) at any moment"
		if s.Seccomp != 0 {
			filtered = "the process's system calls are filtered (seccomp)"
		}
		return filtered + ", and this node's kernel kills such a process by a probe on a return: " + or(text, "the self-test did not look")
	}
	if since := shadowStackSince[r.Facts.Arch]; s.ShadowStack && !atLeast(r.Facts.Kernel, since) {
		return fmt.Sprintf("the process has a shadow stack, and kernels before %d.%d crash it by a probe on a return; this one is %s", since[0], since[1], r.Facts.Kernel)
	}
	return ""
}

// shadowStackSince are the kernels from which on return probes and shadow stacks go together: commits 1713b63a07a2 (x86) and
// efb07ac534e2 (arm64). No process can turn its shadow stack on half way, so that the self-test cannot look.
var shadowStackSince = map[string][2]int{"amd64": {6, 11}, "arm64": {6, 18}}

// atLeast says whether a kernel's release is this version or a later one. A release that cannot be read is not.
func atLeast(release string, version [2]int) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if end := strings.IndexFunc(minor, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		minor = minor[:end]
	}
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && version != [2]int{} && (a > version[0] || a == version[0] && b >= version[1])
}

// patchOf is the third number of a release of a branch.
func patchOf(release string, branch [2]int) (patch int, ok bool) {
	rest, ok := strings.CutPrefix(release, fmt.Sprintf("%d.%d.", branch[0], branch[1]))
	if !ok {
		return 0, false
	}
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	patch, err := strconv.Atoi(rest)
	return patch, err == nil
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"fmt"
	"strconv"
	"strings"
)

// A Status is what Keyhole uses of /proc/PID/status.
type Status struct {
	Parent int
	// Seccomp is how system calls are filtered: 0 not at all, 1 strictly, 2 by a program.
	Seccomp int
	// ShadowStack says that the processor compares each return address with a copy of its own.
	ShadowStack bool
}

// ParseStatus reads the content of /proc/PID/status. A process chooses its own name in it, in which the kernel escapes
// newlines. What is not there, because a kernel is older or built without it, is zero.
func ParseStatus(b []byte) (Status, error) {
	var s Status
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "PPid":
			s.Parent, err = strconv.Atoi(value)
		case "Seccomp":
			s.Seccomp, err = strconv.Atoi(value)
		case "x86_Thread_features", "arm64_Thread_features":
			s.ShadowStack = strings.Contains(" "+value+" ", " shstk ") || strings.Contains(" "+value+" ", " gcs ")
		}
		if err != nil {
			return Status{}, fmt.Errorf("parse status: %.32s: %w", key, err)
		}
	}
	return s, nil
}

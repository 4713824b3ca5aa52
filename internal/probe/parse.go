// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// ParseTarget reads a TARGET as it is typed: pid/123, exe/ and the path of an executable, whose first slash may be left
// out, or kernel. The node is a flag of its own.
func ParseTarget(text string) (Selector, error) {
	kind, rest, more := strings.Cut(text, "/")
	var s Selector
	switch SelectorKind(kind) {
	case SelectPID:
		pid, err := strconv.ParseUint(rest, 10, 31)
		if err != nil {
			return s, fmt.Errorf("TARGET %.64q: want pid/ and a process number, such as pid/4711", text)
		}
		s = Selector{Kind: SelectPID, PID: int(pid)}
	case SelectExe:
		if rest == "" {
			return s, fmt.Errorf("TARGET %.64q: want exe/ and the path of an executable, such as exe/usr/bin/caddy", text)
		}
		s = Selector{Kind: SelectExe, Path: path.Clean("/" + rest)}
	case SelectKernel:
		if more {
			return s, fmt.Errorf("TARGET %.64q: want kernel, and its function behind it", text)
		}
		s = Selector{Kind: SelectKernel}
	default:
		return s, fmt.Errorf("TARGET %.64q: want pid/N, exe/PATH or kernel", text)
	}
	return s, s.Validate()
}

// ParseRate reads a number of events a second: "50/s", or "50".
func ParseRate(text string) (uint32, error) {
	rate, err := strconv.ParseUint(strings.TrimSuffix(text, "/s"), 10, 32)
	if err != nil || rate == 0 || rate > MaxRate {
		return 0, fmt.Errorf("--rate %.32q: want events a second, 1/s to %d/s", text, MaxRate)
	}
	return uint32(rate), nil
}

// ParseSample reads which share of the hits is looked at: "1/10" is one of ten.
func ParseSample(text string) (uint32, error) {
	of, found := strings.CutPrefix(text, "1/")
	n, err := strconv.ParseUint(of, 10, 32)
	if !found || err != nil || n == 0 {
		return 0, fmt.Errorf("--sample %.32q: want one of so many, such as 1/10", text)
	}
	return uint32(n), nil
}

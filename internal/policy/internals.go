// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/keyhole-dev/keyhole/internal/glob"

// internals are functions that no node lets anybody probe, whatever its file says, and why.
var internals = []struct {
	pattern string
	because string
}{
	{"runtime.*", "Go's runtime runs it at every allocation, switch of goroutines or signal, on stacks and at moments that are nobody else's"},
	{"runtime/internal/*", "Go's runtime is made of it"},
	{"internal/runtime/*", "Go's runtime is made of it"},
	{"internal/bytealg.*", "Go's runtime and nearly every function of the program compare and copy bytes with it"},
	{"sync/atomic.*", "locks are made of it: a stop there makes every processor that wants the lock wait"},
	{"_cgo_*", "it is the way between Go and C, where a thread is neither"},
	{"crosscall*", "it is the way between Go and C, where a thread is neither"},
	{"__restore_rt", "the kernel returns from every signal through it"},
	{"__morestack*", "it makes stacks larger, on one that is too small"},
}

// Internal says why nobody may probe a function of this name on any node; empty: nothing is known against it.
func Internal(function string) string {
	for _, i := range internals {
		if glob.MatchAny([]string{i.pattern}, function) {
			return i.because
		}
	}
	return ""
}

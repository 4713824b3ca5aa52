// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/hex"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestReturnProbe: a function that ends in a call of another has the kernel's return probe in a plain program of C, and in no other.
func TestReturnProbe(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("on other machines there is none")
	}
	const c, cc, rs = "agent/resolve/testdata/tails.c", "agent/resolve/testdata/tails.cc", "agent/resolve/testdata/tails.rs"
	for name, x := range map[string]struct {
		compiler, file string
		flags          []string
		function, says string // empty: it is given
	}{
		"plain":                          {"gcc", c, []string{"-O2", "-g"}, "tail", ""},
		"without debug information":      {"gcc", c, []string{"-O2"}, "tail", ""},
		"with bytes of no instruction":   {"gcc", c, []string{"-O2", "-g", "-DUNKNOWN"}, "unknown", ""},
		"with contexts":                  {"gcc", c, []string{"-O2", "-DCONTEXTS"}, "tail", "calls setcontext: the kernel kills a thread"},
		"with another stack for signals": {"gcc", c, []string{"-O2", "-DSIGNALS"}, "tail", "calls sigaltstack: the kernel kills a thread"},
		"whose threads end themselves":   {"gcc", c, []string{"-O2", "-DTHREADS", "-pthread"}, "tail", "calls pthread_exit: it unwinds"},
		"that calls the kernel":          {"gcc", c, []string{"-O2", "-DCALLS"}, "tail", "calls syscall: it may ask the kernel for another stack"},
		"that calls it itself":           {"gcc", c, []string{"-O2", "-DCALLS_ITSELF"}, "tail", "may go on on another stack"},
		"that looks who calls":           {"gcc", c, []string{"-O2", "-DLOOKS"}, "tail", "calls dlsym: it looks at where a call came from"},
		"that loads":                     {"gcc", c, []string{"-O2", "-DLOADS"}, "tail", "calls dlopen: what is loaded later"},
		"that switches stacks itself":    {"gcc", c, []string{"-O2", "-DSWITCHES"}, "tail", "may go on on another stack"},
		"that makes code":                {"gcc", c, []string{"-O2", "-DMAKES"}, "tail", "code that is in no file"},
		"that cleans up":                 {"gcc", c, []string{"-O2", "-DCLEANS", "-fexceptions"}, "tail", "the program handles exceptions"},
		"with a C++ library":             {"gcc", c, []string{"-O2", "-Wl,--no-as-needed", "-lstdc++"}, "tail", "has loaded lib"},
		"static":                         {"gcc", c, []string{"-O2", "-static"}, "tail", "the kernel's return probe is not for it"},
		"C++":                            {"g++", cc, []string{"-O2", "-g"}, "tail", "not written in C"},
		"C++ without debug information":  {"g++", cc, []string{"-O2"}, "tail", "handles exceptions"},
		"Rust":                           {"rustc", rs, []string{"-O", "-g", "-Cpanic=unwind"}, "tail", "not written in C"},
		"Rust without debug information": {"rustc", rs, []string{"-O", "-Cpanic=unwind"}, "tail", "exceptions"},
	} {
		t.Run(name, func(t *testing.T) {
			path := build(t, x.compiler, x.file, x.flags...)
			if path == "" {
				t.Skip("this machine has no compiler for it")
			}
			found, err := resolveReturns(t, path, x.function)
			if x.says != "" {
				if err == nil || !strings.Contains(err.Error(), x.says) || !strings.Contains(err.Error(), "returns in its place") {
					t.Errorf("%v; want %q", err, x.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r := found.Returns; r == nil || !r.ByKernel || r.By != target.ByThread || len(found.Sites) != 2 || found.Sites[0].Address != found.Sites[1].Address {
				t.Errorf("returns %+v at %+v", r, found.Sites)
			}
			if err := found.Validate(); err != nil {
				t.Error(err)
			}
			if _, err := resolveReturns(t, path, x.function, func(s *probe.Spec) { s.Stack = true }); err == nil || !strings.Contains(err.Error(), "leave out --stack") {
				t.Errorf("with callers: %v", err)
			}
		})
	}
}

// TestNoReturnProbeForGo: a Go program has none, in no function of whichever language.
func TestNoReturnProbeForGo(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("on other machines there is none")
	}
	for path, functions := range map[string][]string{
		testkit.BuildGo(t, "test/targets/calls"): {"runtime.gogo", "runtime.mcall"},
		buildCgo(t):                              {"tail", "runtime.mcall"},
	} {
		for _, function := range functions {
			_, err := resolveReturns(t, path, function)
			if err == nil || !strings.Contains(err.Error(), "a Go program dies of it") {
				t.Errorf("%s: %v", function, err)
			}
		}
	}
}

// buildCgo builds a Go program with a function of C that ends in a call of another.
func buildCgo(t *testing.T) string {
	t.Helper()
	return build(t, "go", "agent/resolve/testdata/cgotails/main.go", "build")
}

// resolveReturns asks for the calls of a function, with their returns, in a process that runs a program.
func resolveReturns(t *testing.T, path, function string, change ...func(*probe.Spec)) (*target.Target, error) {
	t.Helper()
	p := testkit.Start(t, path)
	p.Expect("ready", 10*time.Second)
	s := probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: p.PID()}, Function: function, Results: []string{probe.Duration}, Reason: "test",
	}.WithDefaults()
	for _, change := range change {
		change(&s)
	}
	return Resolve(inputOf(t, p.PID()), &s)
}

// TestChangesStack: what goes on on another stack, and what compilers write at the end of frames.
func TestChangesStack(t *testing.T) {
	for text, want := range map[string]bool{
		"488b26": true, "0f05": true, "cd80": true, "cc": false, "488b6630": true, "488b6778": true, "4889fc": true, "4889f4": true, "4894": true, "4887e7": true, "5c": true, "488d6708": true,
		"4889ec": false, "488d65d8": false, "498d62f8": false, "4883ec08": false, "4889dc": false, "488b65c8": false, "4881c400010000": false, "c9": false, "5d": false,
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, length := changesStackX86(b); got != want || length != len(b) {
			t.Errorf("%s: %v, of %d bytes", text, got, length)
		}
	}
}

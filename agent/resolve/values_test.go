// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestValues resolves every function that the targets call, for every way to build them, stops the programs at the sites, and compares
// what is read from the places that resolve says with what the programs say that they passed: the number of calls, too.
func TestValues(t *testing.T) {
	requirePtrace(t)
	const goTarget, cTarget = "test/targets/gofuncs", "test/targets/cfuncs/main.c"
	landing := map[string]string{"amd64": "-fcf-protection", "arm64": "-mbranch-protection=standard"}[runtime.GOARCH]
	// Of what arm64 passes in registers a compiler names the copy that it makes.
	copied := func(names ...string) []string {
		if runtime.GOARCH != "arm64" {
			return nil
		}
		return names
	}
	for _, build := range []struct {
		name string
		exe  func(t *testing.T) string
		// OnStack s: Go 1.26 names the place of its length as that of the whole string, since only the length is used.
		// missing are the values that may be missing ("FUNCTION PATH"), as a prefix.
		missing []string
		// refused are the functions that may be refused.
		refused []string
	}{
		{name: "go", exe: func(t *testing.T) string { return testkit.BuildGo(t, goTarget) }, missing: []string{"Opaque f", "OnStack s"}},
		{name: "go, not optimised", exe: func(t *testing.T) string { return testkit.BuildGo(t, goTarget, "-gcflags=all=-N -l") }, missing: []string{"Opaque f"}},
		{name: "go, position-independent", exe: func(t *testing.T) string { return testkit.BuildGo(t, goTarget, "-buildmode=pie") }, missing: []string{"Opaque f", "OnStack s"}},
		{name: "c -O2", exe: cBuild(cTarget, "-O2", "-g"), missing: []string{"with_float m"}},
		{name: "c -O2, without a table of symbols", exe: cBuild(cTarget, "-O2", "-g", "-Wl,--discard-all"), missing: []string{"with_float m"}},
		{name: "c -O1", exe: cBuild(cTarget, "-O1", "-g"), missing: []string{"with_float m"}, refused: []string{"spin"}},
		{name: "c -Og", exe: cBuild(cTarget, "-Og", "-g"), missing: []string{"with_float m"}, refused: []string{"spin"}},
		{name: "c -O0", exe: cBuild(cTarget, "-O0", "-g"), missing: append(copied("in_memory l"), "with_float m")},
		{name: "c -O3, DWARF 4, no PIE, with landing pads", exe: cBuild(cTarget, "-O3", "-gdwarf-4", "-no-pie", landing), missing: []string{"with_float m"}},
		{name: "c -O2, one place for each variable", exe: cBuild(cTarget, "-O2", "-g", "-fno-var-tracking"), missing: append(copied("address_taken s"), "with_float", "by_value", "choose", "many", "integers", "checked", "enumeration", "in_memory", "unused", "strings", "structs")},
		{name: "c -O2, compressed", exe: cBuild(cTarget, "-O2", "-g", "-gz"), missing: []string{"with_float m"}},
	} {
		t.Run(build.name, func(t *testing.T) {
			compare(t, build.exe(t), build.missing, build.refused)
		})
	}
}

func cBuild(source string, flags ...string) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		return testkit.BuildC(t, "cfuncs", []string{source}, flags...)
	}
}

func compare(t *testing.T, exe string, missing, refused []string) {
	t.Helper()
	said := calls(t, exe)
	tr := startTraced(t, exe)
	in := inputOf(t, tr.pid)
	names := make(map[string]string) // the target's name for a function by the symbol's
	for _, name := range functionsOf(said) {
		spec := &probe.Spec{Function: name, Arguments: pathsOf(said, name)}
		target, err := Resolve(in, spec)
		if err != nil {
			if problem.Of(err).Code != problem.FailedPrecondition || !slices.Contains(refused, name) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		names[target.Function.Name] = name
		tr.set(target)
	}
	hits, lines := tr.round()
	seen := make(map[string][]map[string]string)
	for _, h := range hits {
		seen[names[h.function]] = append(seen[names[h.function]], h.values)
		if strings.HasPrefix(in.Identity.Comm, "gofuncs") && h.values["goroutine"] != "1" {
			t.Errorf("%s: goroutine %q, want 1", h.function, h.values["goroutine"])
		}
	}
	for _, line := range lines {
		c := parseCall(t, line)
		if c.name == "" || slices.Contains(refused, c.name) && len(seen[c.name]) == 0 {
			continue
		}
		if len(seen[c.name]) == 0 {
			t.Errorf("%s: called more often than seen", c.name)
			continue
		}
		got := seen[c.name][0]
		seen[c.name] = seen[c.name][1:]
		for path, want := range c.values {
			mayMiss := slices.ContainsFunc(missing, func(m string) bool { return strings.HasPrefix(c.name+" "+path, m) })
			if g := got[path]; g != want && (!mayMiss || !strings.HasPrefix(g, "missing: ")) {
				t.Errorf("%s: %s is %s, want %s", c.name, path, g, want)
			}
		}
	}
	for name, left := range seen {
		if len(left) > 0 {
			t.Errorf("%s: seen %d times more than called", name, len(left))
		}
	}
}

func functionsOf(said []call) []string {
	var names []string
	for _, c := range said {
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

func pathsOf(said []call, name string) []string {
	var paths []string
	for _, c := range said {
		for path := range c.values {
			if c.name == name && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

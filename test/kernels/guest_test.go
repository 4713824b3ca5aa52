// SPDX-License-Identifier: Apache-2.0

package kernels_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A suite is a package whose tests run on every kernel.
type suite struct {
	pkg  string
	run  string // regular expression of the tests; all of them if empty
	skip string // of those that an emulated processor takes too long for
	// seconds is how long all of them may take.
	seconds int
}

var suites = []suite{
	// The linter looks at files, which are the same everywhere.
	{pkg: "bpf", skip: "^Test(Mutants|Instructions)$", seconds: 60},
	{pkg: "agent/selftest", seconds: 120},
	// These are hundreds of probes that TestKernelAgreesWithEvaluator, TestValues and TestHistogram have some of; TestRate keeps to real time,
	// and TestCrossProcess shows races, which there are none of here.
	{pkg: "agent/loader", skip: "^Test(Actions|MissingValues|RandomStrings|HistogramOfSizes|Rate|CrossProcess)$", seconds: 600},
	{pkg: "agent/privsep", run: `^Test(Hold|ReaderHasNoPrivilege|AgentHasNoPrivilege|MonitorHasFourCapabilities|SelfTest|Examine|KernelSession|ForeignBreakpoint|GrantIsJudgedByTheMonitor|Filtered|AgentFiltered)$`, seconds: 300},
	{pkg: "internal/kbtf", run: `^Test`, seconds: 60},
	{pkg: "test/returns", run: `^Test(Pairs|CalleesOfC)$`, seconds: 300},
}

// programs are what these tests run as targets.
var programs = []testkit.Source{
	testkit.CProgram("hot", []string{"test/targets/hot/hot.c"}, "-O2", "-g", "-pthread"),
	testkit.CProgram("forks", []string{"test/targets/forks/forks.c"}, "-O2", "-g"),
	testkit.CProgram("ccalls", []string{"test/targets/ccalls/main.c"}, "-O1", "-g", "-pthread", "-fno-optimize-sibling-calls"),
	testkit.GoProgram("test/targets/vault"),
	testkit.GoProgram("test/targets/calls"),
}

// What the agent says of a node: as it is, and where the node takes kernels without uprobe_multi links.
const (
	doctor           = "keyhole-agent doctor"
	doctorPerfEvents = "keyhole-agent doctor --perf-events"
)

// allowPerfEvents is what the owner of a node does whose kernel is Debian's and has no uprobe_multi links, or no kprobe_multi links, which
// came later for arm64 (docs/concepts.md).
var allowPerfEvents = map[string]string{
	"amd64": `case $(cat /proc/sys/kernel/osrelease) in 5.*|6.[0-5].*) echo 2 >/proc/sys/kernel/perf_event_paranoid;; esac`,
	"arm64": `case $(cat /proc/sys/kernel/osrelease) in 6.?.*|6.1[0-3].*) echo 2 >/proc/sys/kernel/perf_event_paranoid;; esac`,
}

// A job is what init does; see test/kernels/init.
type job struct {
	Name    string
	Dir     string
	Args    []string
	Seconds int
}

const (
	moduleDir   = "/keyhole"  // where the module's root is there
	programsDir = "/programs" // and the programs
)

// buildGuest makes the one initial file system for all kernels of an architecture: everything for the tests is in it, since
// these kernels have drivers for little.
func buildGuest(t *testing.T, cache, arch, only string) string {
	t.Helper()
	root := testkit.Root(t)
	stage := t.TempDir()
	dir := func(name string) string {
		path := filepath.Join(stage, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	goBuild := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	bin := dir("bin")
	for _, empty := range []string{"proc", "sys", "dev", "tmp", "run", "root", "etc"} {
		dir(empty)
	}
	copyFile(t, filepath.Join(cache, arch, "busybox"), filepath.Join(bin, "busybox"))
	for _, name := range []string{"sh", "true", "cat", "sleep", "echo", "kill"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	goBuild("build", "-o", filepath.Join(stage, "init"), "./test/kernels/init")
	goBuild("build", "-ldflags=-w", "-o", filepath.Join(bin, "keyhole-agent"), "./cmd/keyhole-agent")
	built := dir(programsDir)
	for _, p := range programs {
		p.CrossBuild(t, built, arch)
	}
	module := dir(moduleDir)
	copyFile(t, filepath.Join(root, "go.mod"), filepath.Join(module, "go.mod"))
	jobs := []job{
		{Name: doctor, Dir: "/", Args: []string{"/bin/keyhole-agent", "doctor"}, Seconds: 60},
		{Name: doctor + ": perf_event_paranoid", Dir: "/", Args: []string{"/bin/sh", "-c", allowPerfEvents[arch]}, Seconds: 10},
		{Name: doctorPerfEvents, Dir: "/", Args: []string{"/bin/keyhole-agent", "doctor", "--perf-events"}, Seconds: 60},
	}
	for _, s := range suites {
		there := dir(filepath.Join(moduleDir, s.pkg))
		goBuild("test", "-c", "-ldflags=-w", "-o", filepath.Join(there, "tests"), "./"+s.pkg)
		copyData(t, filepath.Join(root, s.pkg), there)
		run, skip := s.run, s.skip
		if only != "" {
			run, skip = only, ""
		}
		args := append([]string{"/bin/busybox", "env"}, testkit.Guest(programsDir)...)
		args = append(args, "./tests", "-test.v=test2json", "-test.run="+run, "-test.skip="+skip, fmt.Sprintf("-test.timeout=%ds", s.seconds))
		jobs = append(jobs, job{Name: s.pkg, Dir: filepath.Join(moduleDir, s.pkg), Args: args, Seconds: s.seconds + 10})
	}
	data, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(stage, "jobs.json"), data)
	writeFile(t, filepath.Join(stage, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"))
	image := filepath.Join(t.TempDir(), "initramfs")
	if err := writeInitramfs(image, stage); err != nil {
		t.Fatal(err)
	}
	return image
}

// copyData copies what tests of a package read besides its sources.
func copyData(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case e.Name() == "testdata":
			if err := os.CopyFS(filepath.Join(to, "testdata"), os.DirFS(filepath.Join(from, "testdata"))); err != nil {
				t.Fatal(err)
			}
		case e.Type().IsRegular() && filepath.Ext(e.Name()) != ".go":
			copyFile(t, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, data)
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

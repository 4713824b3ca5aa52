// SPDX-License-Identifier: Apache-2.0

// Package kernels_test runs tests of other packages, and the agent's own word on a node, on kernels that are booted for it in an
// emulator. scripts/kernels.sh fetches them.
//
// What an emulated kernel cannot show: races between cores, and what the kernel's rewriting of NOPs does to red zones. These run on
// the machine itself.
package kernels_test

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

var (
	onlyKernel = flag.String("kernel", "", "boot only this series, for instance 6.12")
	onlyArch   = flag.String("arch", "", "boot only kernels of this architecture, in Go's words")
	onlyTests  = flag.String("guest-run", "", "run only tests with such names, by a regular expression, and these even where the matrix leaves them out")
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A kernel is one that Keyhole is tried on.
type kernel struct {
	arch, series string
	// refused is in what the agent says where it takes no session, refusedAll where not even one that was started with --perf-events does.
	refused, refusedAll string
	// asked says that the agent is asked what it says of the node, and that no other test runs.
	asked bool
}

const (
	noUprobeMulti = "no probe can be loaded here: the kernel has no uprobe_multi links (Linux 6.6); started with --perf-events, the agent takes perf events in their place"
	noLoop        = "no probe can be loaded here: the kernel has no bpf_loop (Linux 5.17)"
)

var kernels = []kernel{
	{"amd64", "5.10", noLoop, noLoop, false},
	{"amd64", "6.1", noUprobeMulti, "", false},
	{"amd64", "6.12", "", "", false},
	{"amd64", "7.3", "", "", false},
	{"arm64", "6.1", noUprobeMulti, "", false},
	{"arm64", "6.12", "", "", false},
	{"arm64", "7.3", "", "", false},
}

// atOnce is how many kernels run at a time: an emulated processor keeps a real one busy.
const atOnce = 2

func TestMatrix(t *testing.T) {
	t.Parallel()
	cache := cacheOf(t)
	watchSources(t)
	turn := make(chan struct{}, atOnce)
	var table table
	t.Cleanup(func() {
		table.write(t)
		table.proofs.judge(t)
	})
	images := make(map[string]func() string)
	for _, k := range kernels {
		if *onlyKernel != "" && k.series != *onlyKernel || *onlyArch != "" && k.arch != *onlyArch {
			continue
		}
		if images[k.arch] == nil {
			images[k.arch] = sync.OnceValue(func() string { return buildGuest(t, cache, k.arch, *onlyTests) })
		}
		image := images[k.arch]()
		t.Run(k.arch+"/"+k.series, func(t *testing.T) {
			t.Parallel()
			turn <- struct{}{}
			defer func() { <-turn }()
			k.judge(t, &table, readConsole(boot(t, k.arch, kernelOf(cache, k.arch, k.series), image, k.jobs())))
		})
	}
	if len(images) == 0 {
		t.Fatalf("no kernel %s for %s in the matrix", *onlyKernel, *onlyArch)
	}
}

// jobs is what the names of those begin with that run there; all if nothing.
func (k kernel) jobs() string {
	if k.asked && *onlyTests == "" {
		return "keyhole-agent"
	}
	return ""
}

// judge makes a subtest of each test that ran there.
func (k kernel) judge(t *testing.T, table *table, r report) {
	for _, c := range r.complaints {
		t.Errorf("%s: %s", r.release, c)
	}
	if !strings.HasPrefix(r.release, k.series+".") {
		t.Errorf("booted %q", r.release)
	}
	row := row{kernel: k, release: r.release, refusals: make(map[string][]string)}
	defer func() { table.add(row) }()
	t.Run("doctor", func(t *testing.T) { row.agent = judgeDoctor(t, r.parts[doctor], k.refused) })
	t.Run("doctor with perf events", func(t *testing.T) { row.withPerfEvents = judgeDoctor(t, r.parts[doctorPerfEvents], k.refusedAll) })
	for _, s := range suites {
		if k.jobs() != "" {
			break
		}
		t.Run(s.pkg, func(t *testing.T) {
			p, began := r.parts[s.pkg]
			if !began {
				t.Fatal("it did not begin")
			}
			all, err := outcomes(s.pkg, p.output)
			if err != nil {
				t.Fatal(err)
			}
			if p.ended != "ok" {
				t.Errorf("%s\n%s", p.ended, tail(p.output, 30))
			}
			if len(all) == 0 && *onlyTests == "" {
				t.Errorf("no test ran\n%s", tail(p.output, 30))
			}
			for _, o := range all {
				row.count(s.pkg, o)
				if o.name == "TestShapes" && o.action == "pass" {
					table.proofs.add(k, o.output)
				}
				t.Run(o.name, func(t *testing.T) { o.report(t) })
			}
		})
	}
}

func (o outcome) report(t *testing.T) {
	switch o.action {
	case "pass":
		t.Logf("in %.1f s\n%s", o.seconds, o.output)
	case "skip":
		t.Skip(o.reason())
	default:
		t.Errorf("%s\n%s", o.action, o.output)
	}
}

// reason is why a test was skipped: what it said last, without the place in its source.
func (o outcome) reason() string {
	reason := "no reason given"
	for line := range strings.Lines(o.output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, rest, ok := strings.Cut(line, ".go:"); ok {
			_, rest, _ = strings.Cut(rest, ": ")
			line = rest
		}
		reason = line
	}
	return reason
}

// judgeDoctor holds what the agent says of a node against what is known of its kernel, and says it in a few words.
func judgeDoctor(t *testing.T, p part, want string) string {
	refusal := ""
	for line := range strings.Lines(p.output) {
		if _, said, ok := strings.Cut(line, "this node takes no session: "); ok {
			refusal = strings.TrimSpace(said)
		}
	}
	if refusal != want || (p.ended == "ok") != (want == "") {
		t.Errorf("%s, %q; want %q\n%s", p.ended, refusal, want, p.output)
	}
	t.Log(p.output)
	if refusal != "" {
		return "refuses: " + refusal
	}
	return "takes sessions"
}

func cacheOf(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KEYHOLE_KERNELS")
	if dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(caches, "keyhole/kernels")
	}
	missing := func(what string, err error) {
		t.Helper()
		text := fmt.Sprintf("%s: %v: scripts/setup.sh installs what this needs", what, err)
		if os.Getenv("CI") == "true" || *onlyKernel+*onlyArch != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	for _, k := range kernels {
		if _, err := os.Stat(kernelOf(dir, k.arch, k.series)); err != nil {
			missing("Linux "+k.series+" for "+k.arch, err)
		}
	}
	for _, m := range machines {
		if _, err := exec.LookPath(m[0]); err != nil {
			missing("the emulator", err)
		}
	}
	return dir
}

// watchSources has `go test` know that this test's result depends on all of the module: what it looks at it watches.
func watchSources(t *testing.T) {
	t.Helper()
	root := testkit.Root(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || path == filepath.Join(root, "bin")):
			return fs.SkipDir
		case !d.IsDir():
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A row says what happened on one kernel.
type row struct {
	kernel
	release, agent, withPerfEvents string
	passed, failed                 int
	refusals                       map[string][]string // reason -> tests
}

func (r *row) count(pkg string, o outcome) {
	switch o.action {
	case "pass":
		r.passed++
	case "skip":
		r.refusals[o.reason()] = append(r.refusals[o.reason()], pkg+"."+o.name)
	default:
		r.failed++
	}
}

// A table is what ran, what was refused, and why.
type table struct {
	mu     sync.Mutex
	rows   []row
	proofs proofs
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

func (t *table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortFunc(t.rows, func(a, b row) int { return slices.Index(kernels, a.kernel) - slices.Index(kernels, b.kernel) })
	var b strings.Builder
	for _, r := range t.rows {
		skipped := 0
		for _, tests := range r.refusals {
			skipped += len(tests)
		}
		fmt.Fprintf(&b, "%s %s: %d tests passed, %d failed, %d refused\n    the agent %s\n", r.arch, r.release, r.passed, r.failed, skipped, r.agent)
		if r.withPerfEvents != r.agent {
			fmt.Fprintf(&b, "    with --perf-events it %s\n", r.withPerfEvents)
		}
		for _, reason := range slices.Sorted(maps.Keys(r.refusals)) {
			tests := r.refusals[reason]
			fmt.Fprintf(&b, "    %3d  %s: %s\n", len(tests), reason, strings.Join(tests[:min(3, len(tests))], ", "))
		}
	}
	return b.String()
}

// write puts the table into bin/, from where `make test` shows it.
func (t *table) write(test *testing.T) {
	text := t.String()
	test.Logf("\n%s", text)
	dir := filepath.Join(testkit.Root(test), "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		test.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kernels.txt"), []byte(text), 0o644); err != nil {
		test.Fatal(err)
	}
}

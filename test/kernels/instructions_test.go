// SPDX-License-Identifier: Apache-2.0

package kernels_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write what the verifiers took into "+instructionsFile)

const (
	instructionsFile = "testdata/instructions.txt"
	// A tenth more than what is on record is a change for the worse that somebody has to look at.
	tolerance = 10

	instructionsHead = `# How many instructions each kernel's verifier processes to prove a plan of each shape (TestShapes in agent/loader).
# TestMatrix fails where one takes a tenth more, and where a shape is new or gone; with -update it writes this file.
`
)

// A proof is one shape of plan on one kernel.
type proof struct{ arch, series, shape string }

// proofs are the instructions that verifiers took.
type proofs struct {
	mu sync.Mutex
	of map[proof]int
}

var shapeLine = regexp.MustCompile(`(?m)_test\.go:\d+: (.+?) +\d+ ops +(\d+) instructions`)

// add reads them from what TestShapes has written on a kernel.
func (p *proofs) add(k kernel, output string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[proof]int)
	}
	for _, m := range shapeLine.FindAllStringSubmatch(output, -1) {
		n, err := strconv.Atoi(m[2])
		if err == nil && n > 0 { // 0 where the kernel does not say
			p.of[proof{k.arch, k.series, m[1]}] = n
		}
	}
}

// judge compares them with those on record, on the kernels that ran.
func (p *proofs) judge(t *testing.T) {
	t.Helper()
	recorded := readProofs(t)
	ran := make(map[[2]string]bool)
	for now := range p.of {
		ran[[2]string{now.arch, now.series}] = true
	}
	if *update {
		for old, n := range recorded {
			if !ran[[2]string{old.arch, old.series}] {
				p.of[old] = n
			}
		}
		writeProofs(t, p.of)
		return
	}
	for now, n := range p.of {
		before, known := recorded[now]
		switch {
		case !known:
			t.Errorf("%s, Linux %s for %s: %d instructions, and none on record: run with -update", now.shape, now.series, now.arch, n)
		case n*100 > before*(100+tolerance):
			t.Errorf("%s, Linux %s for %s: %d instructions; %d are on record", now.shape, now.series, now.arch, n, before)
		}
	}
	for old := range recorded {
		if _, still := p.of[old]; !still && ran[[2]string{old.arch, old.series}] {
			t.Errorf("%s, Linux %s for %s is on record and was not loaded: run with -update", old.shape, old.series, old.arch)
		}
	}
}

func readProofs(t *testing.T) map[proof]int {
	t.Helper()
	data, err := os.ReadFile(instructionsFile)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	all := make(map[proof]int)
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		if len(columns) != 4 {
			t.Fatalf("%s: %q: want four columns", instructionsFile, line)
		}
		n, err := strconv.Atoi(columns[2])
		if err != nil {
			t.Fatalf("%s: %q: %v", instructionsFile, line, err)
		}
		all[proof{columns[0], columns[1], columns[3]}] = n
	}
	return all
}

func writeProofs(t *testing.T, all map[proof]int) {
	t.Helper()
	var list []proof
	for p := range all {
		list = append(list, p)
	}
	place := func(p proof) int {
		return slices.IndexFunc(kernels, func(k kernel) bool { return k.arch == p.arch && k.series == p.series })
	}
	slices.SortFunc(list, func(a, b proof) int {
		return cmp.Or(place(a)-place(b), all[a]-all[b], strings.Compare(a.shape, b.shape))
	})
	var b strings.Builder
	b.WriteString(instructionsHead)
	for _, p := range list {
		fmt.Fprintf(&b, "%s\t%s\t%d\t%s\n", p.arch, p.series, all[p], p.shape)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(instructionsFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestRandomOffsets asks for probes at random places in programs of four languages. What is accepted is the begin of an
// instruction, by the word of another disassembler.
func TestRandomOffsets(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the decoder of this package is that of x86-64")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfuncs, hot := []string{"test/targets/cfuncs/main.c"}, []string{"test/targets/hot/hot.c"}
	const cc, rs = "agent/resolve/testdata/offsets.cc", "agent/resolve/testdata/offsets.rs"
	programs := map[string]string{
		"Go, all optimised":     testkit.BuildGo(t, "test/targets/vault"),
		"Go, with its library":  testkit.BuildGo(t, "test/targets/gofuncs"),
		"Go, this test":         self,
		"C, not optimised":      testkit.BuildC(t, "cfuncs", cfuncs, "-O0", "-g", "-lm"),
		"C, with its library":   testkit.BuildC(t, "cfuncs", cfuncs, "-O2", "-static", "-lm"),
		"C, optimised much":     testkit.BuildC(t, "hot", hot, "-O3", "-march=haswell", "-pthread"),
		"C++, not optimised":    build(t, "g++", cc, "-O0", "-g"),
		"C++, with its library": build(t, "g++", cc, "-O2", "-static"),
		"Rust, not optimised":   build(t, "rustc", rs, "-g"),
		"Rust, optimised":       build(t, "rustc", rs, "-O", "-Cstrip=none"),
	}
	each := 1000
	if os.Getenv("KEYHOLE_LONG") != "" {
		each = 50_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for name, path := range programs {
		t.Run(name, func(t *testing.T) {
			if path == "" {
				t.Skip("this machine has no compiler for it")
			}
			accepted := randomOffsets(t, path, random, each)
			t.Logf("%d of %d places accepted", accepted, each)
			if accepted < each/1000 {
				t.Errorf("%d of %d places accepted", accepted, each)
			}
		})
	}
}

// randomOffsets tries so many and returns how many of them were accepted.
func randomOffsets(t *testing.T, path string, random *rand.Rand, tries int) (accepted int) {
	t.Helper()
	starts := instructions(t, path)
	p, err := open(inputOfFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for range tries {
		s := p.symbols[random.IntN(len(p.symbols))]
		end := p.symbols.End(s.Address)
		if end <= s.Address {
			continue
		}
		c, err := p.code(&function{name: s.Name, address: s.Address})
		if err != nil {
			continue // refused as a whole
		}
		site, err := c.prove(s.Address+random.Uint64N(end-s.Address), "anywhere", nil)
		if err != nil {
			continue
		}
		accepted++
		if !starts[site.Address] {
			if wrong++; wrong < 10 {
				t.Errorf("%s+%#x (%#x) is accepted, and no instruction begins there", s.Name, site.Address-s.Address, site.Address)
			}
		}
	}
	return accepted
}

// instructions are where instructions begin, as objdump has it.
func instructions(t *testing.T, path string) map[uint64]bool {
	t.Helper()
	cmd := exec.Command("objdump", "-d", "-w", "--no-show-raw-insn", path)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("objdump %s: %v", path, err)
	}
	starts := make(map[uint64]bool)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		address, _, ok := strings.Cut(strings.TrimLeft(lines.Text(), " "), ":\t")
		if !ok {
			continue
		}
		if a, err := strconv.ParseUint(address, 16, 64); err == nil {
			starts[a] = true
		}
	}
	return starts
}

// build compiles one file; empty: this machine has no such compiler.
func build(t *testing.T, compiler, file string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		return ""
	}
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command(compiler, append(flags, "-o", out, file)...)
	cmd.Dir = testkit.Root(t)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, text)
	}
	return out
}

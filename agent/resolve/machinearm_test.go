// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// buildARM64 builds a command of this module for arm64, whatever this machine is.
func buildARM64(t *testing.T, pkg string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), "./"+pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	cmd.Dir = testkit.Root(t)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// TestAllFunctionsOfARM64 proves the sites of all functions of a program, and the returns of those of Go.
func TestAllFunctionsOfARM64(t *testing.T) {
	p, err := open(inputOfFile(t, buildARM64(t, "test/targets/shop")))
	if err != nil {
		t.Fatal(err)
	}
	var all, behind, refused, returning, unreturned int
	var last uint64
	for _, s := range p.symbols {
		if s.Address == last || s.Size == 0 {
			continue
		}
		last = s.Address
		all++
		f := &function{name: s.Name, address: s.Address}
		if err := p.attachDebug(f); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		c, err := p.code(f)
		if err != nil {
			refused++
			t.Logf("%s: %v", s.Name, err)
			continue
		}
		site, err := c.site()
		switch {
		case err != nil:
			refused++
			t.Logf("%s: %v", s.Name, err)
		case site.Where == "after the stack check":
			behind++
		case strings.Contains(site.Where, "counts twice"):
			t.Errorf("%s: %s", s.Name, site.Where)
		}
		if c.isGo && f.debug != nil && !p.isAssembly(f) {
			returning++
			if _, err := c.returnSites(); err != nil {
				unreturned++
				t.Logf("%s: %v", s.Name, err)
			}
		}
	}
	t.Logf("%d functions, %d behind the stack check, %d refused; %d of Go, %d without returns", all, behind, refused, returning, unreturned)
	if all < 1000 || behind < all/2 || refused > all/50 {
		t.Errorf("%d functions, %d behind the stack check, %d refused", all, behind, refused)
	}
}

// TestRandomOffsetsOfARM64 asks for probes at random places. What is accepted is an instruction, by the word of another disassembler.
func TestRandomOffsetsOfARM64(t *testing.T) {
	const disassembler, tries = "llvm-objdump-19", 20_000
	if _, err := exec.LookPath(disassembler); err != nil {
		t.Skip(err)
	}
	path := buildARM64(t, "test/targets/gofuncs")
	known := knownInstructions(t, disassembler, path)
	p, err := open(inputOfFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	accepted, wrong := 0, 0
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
		if !known[site.Address] {
			if wrong++; wrong < 10 {
				t.Errorf("%s+%#x is accepted (% x), and no instruction is there", s.Name, site.Address-s.Address, site.Bytes)
			}
		}
	}
	t.Logf("%d of %d places accepted", accepted, tries)
	if accepted < tries/100 {
		t.Errorf("%d of %d places accepted", accepted, tries)
	}
}

// knownInstructions are where a disassembler sees one that it knows.
func knownInstructions(t *testing.T, disassembler, path string) map[uint64]bool {
	t.Helper()
	out, err := exec.Command(disassembler, "-d", "--mattr=+all", "--no-show-raw-insn", path).Output()
	if err != nil {
		t.Fatalf("%s: %v", disassembler, err)
	}
	known := make(map[uint64]bool)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		address, text, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if a, err := strconv.ParseUint(address, 16, 64); ok && err == nil && !strings.Contains(text, "<unknown>") && !strings.Contains(text, "udf") {
			known[a] = true
		}
	}
	return known
}

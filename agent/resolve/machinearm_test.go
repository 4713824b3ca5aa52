// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"os"
	"os/exec"
	"path/filepath"
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

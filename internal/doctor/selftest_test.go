// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/procfs"
)

// passed is a test that found nothing.
func passed() SelfTest {
	t := SelfTest{Trap: time.Microsecond, Hits: 1920}
	for _, name := range append([]string{CheckNOP5, CheckNOP10, CheckReturn, CheckReturnSeccomp}, required...) {
		t.Add(name, Pass, "")
	}
	return t
}

// with is a test with one outcome replaced.
func with(name string, o Outcome, text string) SelfTest {
	t := passed()
	for i := range t.Checks {
		if t.Checks[i].Name == name {
			t.Checks[i] = Check{name, o, text}
		}
	}
	return t
}

func TestOnlyAWholeTestPasses(t *testing.T) {
	whole := passed()
	if err := whole.Err(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		test SelfTest
		want string
	}{
		"none at all":      {SelfTest{}, `did not get to its check "load"`},
		"cannot load":      {with(CheckLoad, Fail, "the kernel has no ring buffer"), "the kernel has no ring buffer"},
		"leaks":            {with(CheckRedact, Fail, "a text left"), "the self-test failed (redact): a text left"},
		"cut short":        {SelfTest{Trap: 1, Checks: whole.Checks[:len(whole.Checks)-1]}, `"cost"`},
		"nothing measured": {SelfTest{Checks: whole.Checks}, "the cost of a hit"},
	} {
		if err := c.test.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want an error with %q", name, err, c.want)
		}
	}
	harmful := with(CheckNOP5, Unsafe, "overwritten")
	if err := harmful.Err(); err != nil || harmful.SafeNOP(5) || !harmful.SafeNOP(10) || !harmful.SafeNOP(3) {
		t.Errorf("a node whose kernel harms one kind of site: %v", err)
	}
	if (&SelfTest{}).SafeNOP(5) {
		t.Error("what was not tested is taken for safe")
	}
}

func TestRefuseReturn(t *testing.T) {
	plain, filtered, shadowed := procfs.Status{}, procfs.Status{Seccomp: 2}, procfs.Status{ShadowStack: true}
	for _, c := range []struct {
		name   string
		test   SelfTest
		kernel string
		arch   string
		status procfs.Status
		want   string // empty: allowed
	}{
		{"all is well", passed(), "6.18.44", "amd64", plain, ""},
		{"filtered, mended kernel", passed(), "6.18.44", "amd64", filtered, ""},
		{"filtered, affected kernel", with(CheckReturnSeccomp, Unsafe, "it died"), "6.12.1", "amd64", filtered, "calls are filtered"},
		{"not filtered, affected kernel", with(CheckReturnSeccomp, Unsafe, "it died"), "6.12.1", "amd64", plain, "at any moment"},
		{"nothing tested", SelfTest{}, "6.18.44", "amd64", plain, "did not look"},
		{"returns never work", with(CheckReturn, Unsafe, "it died"), "6.18.44", "amd64", plain, "it died"},
		{"shadow stack, old", passed(), "6.6.99-cloud", "amd64", shadowed, "shadow stack"},
		{"shadow stack, new", passed(), "6.11.0", "amd64", shadowed, ""},
		{"shadow stack, next major", passed(), "7.0.1", "amd64", shadowed, ""},
		{"arm64", passed(), "6.12-arm64", "arm64", shadowed, "shadow stack"},
		{"arm64, new", passed(), "6.18", "arm64", shadowed, ""},
		{"no architecture that we know", passed(), "6.18", "riscv64", shadowed, "shadow stack"},
		{"no release", passed(), "custom", "amd64", shadowed, "shadow stack"},
	} {
		r := Report{Facts: Facts{Kernel: c.kernel, Arch: c.arch}, SelfTest: c.test}
		got := r.RefuseReturn(c.status)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

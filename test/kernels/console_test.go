// SPDX-License-Identifier: Apache-2.0

package kernels_test

import (
	"slices"
	"testing"
)

// TestConsoleIsRead: what fails on a kernel is not taken for a pass, nor is what does not end, what never began, or what the kernel
// complains of.
func TestConsoleIsRead(t *testing.T) {
	t.Parallel()
	r := readConsole("[    0.1] hello\n" +
		"\n=== keyhole: linux 6.12.1-x\n" +
		"\n=== keyhole: begin a\n" +
		"\x16=== RUN   TestA\n\x16--- PASS: TestA (0.25s)\n" +
		"\x16=== RUN   TestB\n    b_test.go:7: it came with Linux 6.6\n\x16--- SKIP: TestB (0.00s)\n" +
		"\x16=== RUN   TestC\n\x16=== RUN   TestC/sub\n    c_test.go:9: wrong\n\x16--- FAIL: TestC/sub (0.00s)\n\x16=== NAME  TestC\n\x16--- FAIL: TestC (0.00s)\n\x16=== NAME  \nFAIL\n" +
		"\n=== keyhole: end a exit status 1\n" +
		"\n=== keyhole: begin b\n" +
		"\x16=== RUN   TestD\n[    9.9] Oops: 0000\n" +
		"\n=== keyhole: kernel [    9.8] WARNING: at fork.c:7\n")
	if r.release != "6.12.1-x" || r.parts["a"].ended != "exit status 1" || r.parts["b"].ended == "ok" || len(r.complaints) != 1 {
		t.Errorf("%+v", r)
	}
	if _, began := r.parts["c"]; began {
		t.Error("what never began is there")
	}
	var got []string
	for _, name := range []string{"a", "b"} {
		all, err := outcomes(name, r.parts[name].output)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			got = append(got, o.name+" "+o.action)
			if o.action == "skip" && o.reason() != "it came with Linux 6.6" {
				t.Errorf("%s was skipped since %q", o.name, o.reason())
			}
		}
	}
	if want := []string{"TestA pass", "TestB skip", "TestC fail", "TestD run"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

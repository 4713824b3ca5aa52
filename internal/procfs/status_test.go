// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"testing"
)

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]Status{
		"Name:\tx\nPPid:\t7\nSeccomp:\t2\nx86_Thread_features:\tshstk wrss \n": {Parent: 7, Seccomp: 2, ShadowStack: true},
		"Name:\tPPid:\\n9\nPPid:\t1\nx86_Thread_features:\t\n":                 {Parent: 1},
		"": {},
	} {
		if got, err := ParseStatus([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	if _, err := ParseStatus([]byte("Seccomp:\tyes\n")); err == nil {
		t.Error("a word was taken for a number")
	}
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := ParseStatus(own); err != nil || s.Parent != os.Getppid() {
		t.Errorf("own status %+v, %v", s, err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("PPid:\t1\nSeccomp:\t2\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseStatus(b) })
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// objects are the shipped files with the names of the two programs in each.
var objects = map[string][2]string{
	"uprobe_x86_bpfel.o": {UprobeProgKhUprobe, UprobeProgKhReturn}, "uprobe_arm64_bpfel.o": {UprobeProgKhUprobe, UprobeProgKhReturn},
	"kprobe_x86_bpfel.o": {KprobeProgKhKprobe, KprobeProgKhKreturn}, "kprobe_arm64_bpfel.o": {KprobeProgKhKprobe, KprobeProgKhKreturn},
}

// TestInstructions reads what is shipped: which helpers it calls, and that bytes leave at one place.
func TestInstructions(t *testing.T) {
	for name, programs := range objects {
		spec, err := ebpf.LoadCollectionSpec(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) != 2 || spec.Programs[programs[0]] == nil || spec.Programs[programs[1]] == nil {
			t.Fatalf("%s: %d programs", name, len(spec.Programs))
		}
		if err := Lint(spec, programs[0] == KprobeProgKhKprobe); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for key, m := range spec.Maps {
			if !strings.HasPrefix(key, "kh_") && key != ".rodata" { // which the loader names
				t.Errorf("%s has a map %s", name, m.Name)
			}
		}
	}
}

// TestNoPathsInside wants objects that say nothing of the machine that they were built on.
func TestNoPathsInside(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name := range objects {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, "/home/", "/root/", "/usr/", "/tmp/"} {
			if bytes.Contains(data, []byte(path)) {
				t.Errorf("%s contains %s", name, path)
			}
		}
	}
}

// TestSharedMemory: both programs' tables and maps are as the one Go mirror of them says.
func TestSharedMemory(t *testing.T) {
	uprobe, err := LoadUprobe()
	if err != nil {
		t.Fatal(err)
	}
	kprobe, err := LoadKprobe()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range uprobe.Variables {
		if other := kprobe.Variables[name]; other == nil || other.Size() != v.Size() {
			t.Errorf("the variable %s of the program for processes has %d bytes, that for the kernel has another", name, v.Size())
		}
	}
	for name, m := range uprobe.Maps {
		if other := kprobe.Maps[name]; other == nil || other.Type != m.Type || other.KeySize != m.KeySize || other.Flags != m.Flags ||
			name != ".rodata" && other.ValueSize != m.ValueSize {
			t.Errorf("the map %s is %v, and %v in the program for the kernel", name, m, other)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// allowed are the helpers that the programs may call. None of them changes anything outside of our own maps.
var allowed = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnGetPrandomU32, asm.FnGetSmpProcessorId, asm.FnProbeReadUser, asm.FnProbeReadUserStr,
	asm.FnKtimeGetBootNs, asm.FnRingbufOutput, asm.FnRingbufQuery, asm.FnGetCurrentTaskBtf, asm.FnGetAttachCookie,
}

// kernelReads are what the program for the kernel may call besides.
var kernelReads = []asm.BuiltinFunc{asm.FnProbeReadKernel, asm.FnProbeReadKernelStr}

// objects are the shipped files with the name of the one program in each.
var objects = map[string]string{
	"uprobe_x86_bpfel.o": UprobeProgKhUprobe, "uprobe_arm64_bpfel.o": UprobeProgKhUprobe,
	"kprobe_x86_bpfel.o": KprobeProgKhKprobe, "kprobe_arm64_bpfel.o": KprobeProgKhKprobe,
}

// TestInstructions reads what is shipped: which helpers it calls, and that bytes leave at one place.
func TestInstructions(t *testing.T) {
	for name, program := range objects {
		spec, err := ebpf.LoadCollectionSpec(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) != 1 || spec.Programs[program] == nil {
			t.Fatalf("%s: %d programs", name, len(spec.Programs))
		}
		outputs := 0
		for _, i := range spec.Programs[program].Instructions {
			if !i.IsBuiltinCall() {
				if i.IsKfuncCall() {
					t.Errorf("%s calls a function of the kernel: %v", name, i)
				}
				continue
			}
			f := asm.BuiltinFunc(i.Constant)
			known := slices.Contains(allowed, f) || program == KprobeProgKhKprobe && slices.Contains(kernelReads, f)
			if !known {
				t.Errorf("%s calls %v", name, f)
			}
			if f == asm.FnRingbufOutput {
				outputs++
			}
		}
		if outputs != 1 {
			t.Errorf("%s has %d places at which a record leaves", name, outputs)
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

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

// allowed are the helpers that the program may call. None of them changes anything outside of our own maps.
var allowed = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnLoop, asm.FnGetPrandomU32, asm.FnGetSmpProcessorId, asm.FnProbeReadUser, asm.FnProbeReadUserStr,
	asm.FnKtimeGetBootNs, asm.FnRingbufOutput, asm.FnRingbufQuery, asm.FnGetCurrentTaskBtf, asm.FnGetAttachCookie,
}

var objects = []string{"uprobe_x86_bpfel.o", "uprobe_arm64_bpfel.o"}

// TestInstructions reads what is shipped: which helpers it calls, and that bytes leave at one place.
func TestInstructions(t *testing.T) {
	for _, name := range objects {
		spec, err := ebpf.LoadCollectionSpec(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) != 2 || spec.Programs[UprobeProgKhUprobe] == nil || spec.Programs[UprobeProgKhReturn] == nil {
			t.Fatalf("%s: %d programs", name, len(spec.Programs))
		}
		for program, s := range spec.Programs {
			outputs := 0
			for _, i := range s.Instructions {
				if !i.IsBuiltinCall() {
					if i.IsKfuncCall() {
						t.Errorf("%s calls a function of the kernel: %v", name, i)
					}
					continue
				}
				f := asm.BuiltinFunc(i.Constant)
				if !slices.Contains(allowed, f) {
					t.Errorf("%s calls %v", name, f)
				}
				if f == asm.FnRingbufOutput {
					outputs++
				}
			}
			if outputs != 1 {
				t.Errorf("%s has %d places in %s at which a record leaves", name, outputs, program)
			}
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
	for _, name := range objects {
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

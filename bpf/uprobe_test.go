// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

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
			if err := Lint(s); err != nil {
				t.Errorf("%s: %s: %v", name, program, err)
			}
		}
		for key, m := range spec.Maps {
			if !strings.HasPrefix(key, "kh_") && key != ".rodata" { // which the loader names
				t.Errorf("%s has a map %s", name, m.Name)
			}
		}
	}
}

// TestLint shows that programs which could harm are refused.
func TestLint(t *testing.T) {
	output := asm.FnRingbufOutput.Call()
	for name, c := range map[string]struct {
		add  asm.Instructions
		want string
	}{
		"as it is":         {asm.Instructions{output}, ""},
		"writes memory":    {asm.Instructions{output, asm.FnProbeWriteUser.Call()}, "ProbeWriteUser"},
		"sends a signal":   {asm.Instructions{output, asm.FnSendSignal.Call()}, "SendSignal"},
		"reserves":         {asm.Instructions{output, asm.FnRingbufReserve.Call()}, "RingbufReserve"},
		"two outputs":      {asm.Instructions{output, output}, "at 2 places"},
		"no output":        {nil, "at 0 places"},
		"of the kernel":    {asm.Instructions{output, {OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall}}, "a function of the kernel"},
		"reads the kernel": {asm.Instructions{output, asm.FnProbeReadKernel.Call()}, "ProbeReadKernel"},
	} {
		err := Lint(&ebpf.ProgramSpec{Name: "kh_x", Instructions: append(c.add, asm.Mov.Imm(asm.R0, 0), asm.Return())})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
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

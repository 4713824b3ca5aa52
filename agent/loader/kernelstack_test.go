// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestNoStackOfItsOwn reads what the kernel has made of the programs: nothing in it asks for the stack of this processor, which several
// hits would share (bpf/kernelstack.h). TestHammer shows what comes of that on a kernel with preemption.
func TestNoStackOfItsOwn(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("reads code of x86-64")
	}
	p := startHot(t)
	loaded, err := load(compile(t, p, request{function: "hot_pair", values: hot.Pair()}), Options{LatestDeadlineNs: BootNow(), RingBytes: os.Getpagesize(), PerfEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	// add r9, gs:[...], as arch/x86/net/bpf_jit_comp.c has it (emit_priv_frame_ptr).
	private := []byte{0x65, 0x4c, 0x03, 0x0c, 0x25}
	for _, program := range []*ebpf.Program{loaded.atEntry, loaded.atReturn} {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		code, ok := info.JitedInsns()
		if !ok || len(code) == 0 {
			t.Fatal("the kernel does not show the code")
		}
		if bytes.Contains(code, private) {
			t.Errorf("%v has a stack of its own", program)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// openat is a function of the kernel that is handed a number, a process's address and one of the kernel's.
func openat() *target.Target {
	return &target.Target{
		Identity: target.Identity{Kernel: "6.12.48", Comm: "kernel", Path: "the kernel 6.12.48", Language: "c", Arch: "amd64"},
		Function: target.Function{Name: "do_sys_openat2"},
		Sites:    []target.Site{{Symbol: "do_sys_openat2", Where: "entry"}},
		Values: []target.Value{
			{Path: "dfd", Names: []string{"dfd"}, TypeName: "int", Kind: target.KindInt, Size: 4, Data: target.Location{Register: 5}},
			{Path: "filename", Names: []string{"filename"}, TypeName: "const char *", Kind: target.KindCString, Data: target.Location{Register: 4}, User: true},
			{Path: "argv", Names: []string{"argv"}, TypeName: "char *", Kind: target.KindCString, Data: target.Location{Register: 2, Offsets: []int64{8}}, User: true},
			{Path: "how.flags", Names: []string{"how", "flags"}, TypeName: "__u64", Kind: target.KindUint, Size: 8, Data: target.Location{Register: 1, Offsets: []int64{0}}},
			{Path: "how", Names: []string{"how"}, TypeName: "struct open_how *", Kind: target.KindPointer, Size: 8, Data: target.Location{Register: 1}},
			{Path: "port", Names: []string{"port"}, TypeName: "__be16", Kind: target.KindUint, Size: 2, BigEndian: true, Data: target.Location{Register: 8}},
		},
	}
}

func openatSpec(where string) *probe.Spec {
	return &probe.Spec{Target: probe.Selector{Kind: probe.SelectKernel}, Function: "do_sys_openat2", Where: where, Reason: "test"}
}

func keepAll(t *testing.T) *redact.Ruleset {
	t.Helper()
	rules, err := redact.Shipped().WithOwner([]redact.Rule{{ID: "test/all", Match: redact.Match{Path: "*"}, Action: redact.Action{Kind: redact.Keep}}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestVerifyKernel: whose memory an op reads is proved, and no address of the kernel's leaves, whatever an owner's rule says.
func TestVerifyKernel(t *testing.T) {
	good := compile(t, openatSpec(`filename == "/etc/shadow" && how.flags != 0`), openat(), keepAll(t))
	for _, f := range good.Fields {
		if pointer := f.Kind == target.KindPointer; pointer != (f.Missing == event.Redacted) || pointer && f.Rule != redact.RuleKernelAddress {
			t.Errorf("%+v", f)
		}
	}
	listing := good.Listing()
	for _, want := range []string{"at do_sys_openat2 of the kernel (entry)", "[s0, to NUL] == \"/etc/shadow\"", "to NUL] in the process as keep"} {
		if !strings.Contains(listing, want) {
			t.Errorf("%q is not in\n%s", want, listing)
		}
	}
	for i, op := range good.Ops {
		if op.Code == plan.OpReg || op.Code == plan.OpEmit || op.Code == plan.OpIfInt {
			p := clone(t, good)
			if p.Ops[i].User = true; p.Verify() == nil {
				t.Errorf("op %d, which reads no memory, reads a process's", i)
			}
		}
	}
	// What a process's memory holds is no address of the kernel's.
	p, followed := clone(t, good), false
	for i, op := range p.Ops {
		if op.Code == plan.OpCStr && i > 0 && p.Ops[i-1].Code == plan.OpLoad && p.Ops[i-1].User {
			p.Ops[i].User = false
			if p.Verify() == nil {
				t.Error("an address from a process's memory is followed as the kernel's")
			}
			followed = true
		}
	}
	if !followed {
		t.Error("no text behind an address of a process's")
	}
	// A plan for a process has no other memory.
	p = clone(t, good)
	p.Identity.Kernel = ""
	if p.Verify() == nil {
		t.Error("a plan for a process reads memory of a process that made a call in the kernel")
	}
}

// TestNetworkOrder: a condition on a number in the network's order compares what is in memory.
func TestNetworkOrder(t *testing.T) {
	p := compile(t, openatSpec("port == 443"), openat(), redact.Shipped())
	if p.Pool[0] != 0x01 || p.Pool[1] != 0xbb || p.Pool[2] != 0 {
		t.Errorf("compares with % x", p.Pool)
	}
	if _, err := plan.Compile(openatSpec("port > 443"), openat(), redact.Shipped()); err == nil || !strings.Contains(err.Error(), "only == and !=") {
		t.Error(err)
	}
	if _, err := plan.Compile(openatSpec("port == 65536"), openat(), redact.Shipped()); err == nil {
		t.Error("a port of 17 bits")
	}
}

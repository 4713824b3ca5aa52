// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// thisKernel is the running one, whose memory may be read or not.
func thisKernel(t *testing.T, readMemory bool) KernelInput {
	t.Helper()
	data, err := os.ReadFile(kbtf.Path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel does not describe its types")
	}
	if err != nil {
		t.Fatal(err)
	}
	allowed := policy.Default().Kernel
	allowed.ReadMemory = readMemory
	return KernelInput{
		BTF: bytes.NewReader(data), Identity: target.Identity{Kernel: "6.0.0-test", Comm: "kernel", Path: "kernel 6.0.0-test"}, Allowed: allowed,
	}
}

func ask(t *testing.T, in KernelInput, function string, paths ...string) *target.Target {
	t.Helper()
	tgt, err := InKernel(in, &probe.Spec{Function: function, Arguments: paths})
	if err != nil {
		t.Fatal(err)
	}
	if err := tgt.Validate(); err != nil {
		t.Fatalf("%v: %+v", err, tgt)
	}
	return tgt
}

func register(n int) int { return kernelABIs[runtime.GOARCH].registers[n] }

// TestKernelPaths resolves functions of the running kernel.
func TestKernelPaths(t *testing.T) {
	in := thisKernel(t, true)
	tgt := ask(t, in, "tcp_connect", "sk.__sk_common.skc_dport", "sk.__sk_common.skc_ipv6only", "sk")
	if s := tgt.Sites; len(s) != 1 || s[0].Symbol != "tcp_connect" || tgt.Function.Signature != "int tcp_connect(struct sock *sk)" {
		t.Errorf("%+v %+v", tgt.Function, s)
	}
	port, bits, pointer := tgt.Values[0], tgt.Values[1], tgt.Values[2]
	if port.Kind != target.KindUint || port.Size != 2 || port.TypeName != "__be16" || port.Missing != "" || port.Data.Register != register(0) ||
		len(port.Data.Offsets) != 1 || port.User {
		t.Errorf("the port is %+v", port)
	}
	if want := []string{"sk", "__sk_common", "skc_dport"}; !slices.Equal(port.Names, want) || !slices.Equal(port.Types, []string{"struct sock *", "struct sock_common", "__be16"}) {
		t.Errorf("the port goes by %q of types %q", port.Names, port.Types)
	}
	if bits.Missing != event.Unsupported || !strings.Contains(bits.Detail, "bit field") {
		t.Errorf("the bit field is %+v", bits)
	}
	if pointer.Kind != target.KindPointer || pointer.Missing != "" || !reflect.DeepEqual(pointer.Data, target.Location{Register: register(0)}) {
		t.Errorf("the pointer is %+v", pointer)
	}

	open := ask(t, in, "do_sys_openat2", "dfd", "filename", "how.flags")
	dfd, name, flags := open.Values[0], open.Values[1], open.Values[2]
	if dfd.Kind != target.KindInt || dfd.Size != 4 || dfd.ReadsMemory() || dfd.Data.Register != register(0) {
		t.Errorf("dfd is %+v", dfd)
	}
	if name.Kind != target.KindCString || !name.User || name.Data.Register != register(1) || !name.ReadsMemory() {
		t.Errorf("filename is %+v", name)
	}
	if flags.User || flags.Kind != target.KindUint || flags.Size != 8 || len(flags.Data.Offsets) != 1 {
		t.Errorf("how.flags is %+v", flags)
	}

	oom := ask(t, in, "oom_kill_process", "oc.chosen.comm", "oc.chosen.pid", "message")
	comm, pid, message := oom.Values[0], oom.Values[1], oom.Values[2]
	if comm.Kind != target.KindCString || comm.Capacity != 16 || comm.Offset == 0 || len(comm.Data.Offsets) != 1 {
		t.Errorf("comm is %+v", comm)
	}
	if pid.Kind != target.KindInt || pid.Size != 4 || len(pid.Data.Offsets) != 2 {
		t.Errorf("pid is %+v", pid)
	}
	types, err := kbtf.Open(in.BTF)
	if err != nil {
		t.Fatal(err)
	}
	if known := message.Missing == ""; known != types.MarksUserPointers() {
		t.Errorf("a text of which the kernel does not say whose memory it is in: %+v", message)
	}
}

// TestKernelChosenByProcesses: an address that a process has put into the kernel's memory unchecked is not followed, whether or not the
// kernel's BTF says whose it is. Who sets one by set_robust_list(2) and is traced would choose what is read of the kernel.
func TestKernelChosenByProcesses(t *testing.T) {
	in := thisKernel(t, true)
	for _, path := range []string{"task.robust_list.futex_offset", "task.robust_list.list.next"} {
		if v := ask(t, in, "ptrace_attach", path).Values[0]; v.Missing != event.Unsupported || v.ReadsMemory() {
			t.Errorf("%s would be read: %+v", path, v)
		}
	}
	if v := ask(t, in, "ptrace_attach", "task.mm.env_start").Values[0]; v.Missing != "" {
		t.Errorf("a pointer of the kernel's own: %+v", v)
	}
}

// TestKernelParameters: where the kernel's BTF does not say whose memory a pointer is into, structs that a function is given are followed
// only of functions of which it is known.
func TestKernelParameters(t *testing.T) {
	in := thisKernel(t, true)
	types, err := kbtf.Open(in.BTF)
	if err != nil {
		t.Fatal(err)
	}
	in.Allowed.Functions = []string{"*"}
	for path, follows := range map[[2]string]bool{
		{"tcp_connect", "sk.__sk_common.skc_dport"}: true, {"__sys_connect", "uservaddr.sa_family"}: false, {"tcp_close", "sk.__sk_common.skc_dport"}: types.MarksUserPointers(),
	} {
		if v := ask(t, in, path[0], path[1]).Values[0]; (v.Missing == "" && !v.User) != follows {
			t.Errorf("%v: %+v", path, v)
		}
	}
}

// TestKernelMemory: without the node's word only what is in registers is there, and who names something else is told.
func TestKernelMemory(t *testing.T) {
	in := thisKernel(t, false)
	tgt := ask(t, in, "do_sys_openat2")
	for _, v := range tgt.Values {
		if v.ReadsMemory() {
			t.Errorf("%s would be read: %+v", v.Path, v)
		}
	}
	if v := tgt.Values[1]; v.Path != "filename" || v.Missing != event.NotAllowed {
		t.Errorf("filename is %+v", v)
	}
	for _, spec := range []probe.Spec{
		{Function: "tcp_connect", Arguments: []string{"sk.__sk_common.skc_dport"}},
		{Function: "do_sys_openat2", Arguments: []string{"filename"}},
		{Function: "tcp_connect", Where: "sk.__sk_common.skc_family == 2"},
	} {
		_, err := InKernel(in, &spec)
		if p := problem.Of(err); p == nil || p.Code != problem.PermissionDenied || !strings.Contains(p.Message, "kernel.readMemory") {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	if tgt := ask(t, in, "tcp_connect", "sk"); tgt.Values[0].Missing != "" {
		t.Errorf("what is in a register: %+v", tgt.Values[0])
	}
}

func TestKernelRefusals(t *testing.T) {
	in := thisKernel(t, true)
	for _, c := range []struct {
		spec       probe.Spec
		code, says string
		candidate  string
	}{
		{probe.Spec{Function: "tcp_conn"}, problem.NotFound, "says nothing of a function", "tcp_connect"},
		{probe.Spec{Function: "tcp_connect", Arguments: []string{"sock"}}, problem.NotFound, "no parameter", "sk"},
		{probe.Spec{Function: "tcp_connect", Arguments: []string{"sk.nothing"}}, problem.NotFound, "no field", "sk.__sk_common"},
		{probe.Spec{Function: "tcp_connect", Arguments: []string{"sk.__sk_common.skc_dport.x"}}, problem.NotFound, "no field", ""},
		{probe.Spec{Function: "tcp_connect", Arguments: []string{"sk..x"}}, problem.InvalidArgument, "empty name", ""},
		{probe.Spec{Function: "tcp_connect", Results: []string{"err"}}, problem.NotFound, "what it returns is r0", "r0"},
		{probe.Spec{Function: "do_exit", Results: []string{probe.Duration}}, problem.FailedPrecondition, "never returns", ""},
	} {
		_, err := InKernel(in, &c.spec)
		p := problem.Of(err)
		if p == nil || p.Code != c.code || !strings.Contains(p.Message, c.says) || c.candidate != "" && !slices.Contains(p.Candidates, c.candidate) {
			t.Errorf("%+v: %v %+v", c.spec, err, p)
		}
	}
	in.BTF = strings.NewReader("no BTF")
	if _, err := InKernel(in, &probe.Spec{Function: "tcp_connect"}); problem.Of(err).Code != problem.FailedPrecondition {
		t.Error(err)
	}
}

// TestKernelFunctions lists what the default list allows of the running kernel: everything on it can be probed, and it is not empty.
func TestKernelFunctions(t *testing.T) {
	in := thisKernel(t, false)
	l, err := KernelFunctions(in, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if l.Matched < 30 || l.Matched != len(l.Functions) {
		t.Errorf("%d functions of which %d are listed", l.Matched, len(l.Functions))
	}
	for _, f := range l.Functions {
		if f.Refused != "" || f.Signature == "" {
			t.Errorf("%+v", f)
		}
		ask(t, in, f.Name)
	}
	if l, err = KernelFunctions(in, "tcp_*sk", 1); err != nil || l.Matched < 1 || len(l.Functions) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	in.Allowed.Functions = []string{"tcp_*"}
	if l, err = KernelFunctions(in, "connect", 0); err != nil || !slices.ContainsFunc(l.Functions, func(f Info) bool { return f.Name == "tcp_connect" }) {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestKernelABI: what is passed where, of made-up functions.
func TestKernelABI(t *testing.T) {
	number := func(n int64) kbtf.Parameter { return kbtf.Parameter{Type: kbtf.Type{Kind: kbtf.Int, Size: n}} }
	record := func(n int64) kbtf.Parameter { return kbtf.Parameter{Type: kbtf.Type{Kind: kbtf.Struct, Size: n}} }
	for what, c := range map[string]struct {
		result     int64
		parameters []kbtf.Parameter
		amd64      string // for each parameter the registers; - on the stack, * by address
		arm64      string
	}{
		"seven numbers":          {0, []kbtf.Parameter{number(4), number(8), number(1), number(2), number(8), number(8), number(4)}, "5 4 1 2 8 9 -", "0 1 2 3 4 5 6"},
		"a large result":         {24, []kbtf.Parameter{number(4)}, "4", "0"},
		"a small result":         {16, []kbtf.Parameter{number(4)}, "5", "0"},
		"structs of 8, 16, 24":   {0, []kbtf.Parameter{record(8), record(16), record(24), number(4)}, "5 4,1 - 2", "0 1,2 *3 4"},
		"no room for two":        {0, []kbtf.Parameter{number(8), number(8), number(8), number(8), number(8), record(16), number(4)}, "5 4 1 2 8 - 9", "0 1 2 3 4 5,6 7"},
		"numbers of 16 bytes":    {0, []kbtf.Parameter{number(4), number(16), number(4)}, "5 4,1 2", "0 2,3 4"},
		"the stack, once begun":  {0, []kbtf.Parameter{number(8), number(8), number(8), number(8), number(8), number(8), number(8), record(16), number(4)}, "5 4 1 2 8 9 - - -", "0 1 2 3 4 5 6 - -"},
		"a struct without field": {0, []kbtf.Parameter{record(0), number(4)}, " 5", " 0"},
	} {
		f := &kbtf.Function{Parameters: c.parameters}
		if c.result > 0 {
			f.Result = kbtf.Type{Kind: kbtf.Struct, Size: c.result}
		}
		for arch, want := range map[string]string{"amd64": c.amd64, "arm64": c.arm64} {
			var got []string
			for _, a := range arguments(f, arch) {
				got = append(got, describeArgument(a))
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("%s on %s: %q, want %q", what, arch, s, want)
			}
		}
	}
}

func describeArgument(a argument) string {
	if a.missing != nil {
		return "-"
	}
	var parts []string
	for _, p := range a.place.pieces {
		if p.memory != nil {
			return "*" + string(rune('0'+p.memory.register))
		}
		parts = append(parts, string(rune('0'+p.register)))
	}
	return strings.Join(parts, ",")
}

// FuzzKernelPath: whatever path is asked for is refused, or found within all bounds.
func FuzzKernelPath(f *testing.F) {
	data, err := os.ReadFile(kbtf.Path)
	if err != nil {
		f.Skip(err)
	}
	types, err := kbtf.Open(bytes.NewReader(data))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"sk.__sk_common.skc_dport", "sk.__sk_common.skc_net.net.ns.inum", "pathname.name", "op.0", "skb.sk.sk_socket.file.f_path.dentry.d_name.name", "oc.chosen.comm.3"} {
		f.Add("tcp_retransmit_skb", path)
		f.Add("do_filp_open", path)
		f.Add("oom_kill_process", path)
	}
	f.Fuzz(func(t *testing.T, function, path string) {
		k := &kernel{in: KernelInput{Identity: target.Identity{Kernel: "x", Arch: runtime.GOARCH}, Allowed: policy.Kernel{ReadMemory: true}}, types: types}
		tgt, err := k.resolve(&probe.Spec{Function: function, Arguments: []string{path}})
		if err != nil {
			return
		}
		if err := tgt.Validate(); err != nil {
			data, _ := json.Marshal(tgt)
			t.Errorf("%v: %s", err, data)
		}
	})
}

// TestKernelUnions: the bytes of a union's member have the names of the others, too, for rules to look at.
func TestKernelUnions(t *testing.T) {
	in := thisKernel(t, true)
	for path, want := range map[string]string{
		"sk.__sk_common.skc_daddr": "sk.__sk_common.skc_addrpair", "sk.__sk_common.skc_dport": "sk.__sk_common.skc_portpair", "sk.__sk_common.skc_family": "",
	} {
		tgt := ask(t, in, "tcp_connect", path)
		var names []string
		for _, a := range tgt.Values[0].Aliases {
			names = append(names, strings.Join(a.Names, "."))
		}
		if want == "" && len(names) > 0 || want != "" && !slices.Contains(names, want) {
			t.Errorf("the bytes of %s are those of %q, too; want %q", path, names, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestNumbersAreTheKernels reads the numbers that both sides share from the header that the kernel's side is built with.
func TestNumbersAreTheKernels(t *testing.T) {
	header, err := os.ReadFile("../../bpf/types.h")
	if err != nil {
		t.Fatal(err)
	}
	kernel := make(map[string]uint64)
	for _, m := range regexp.MustCompile(`(?m)^\t(KH_[A-Z_]+) = (0x[0-9a-f]+|[0-9]+),`).FindAllSubmatch(header, -1) {
		n, err := strconv.ParseUint(string(m[2]), 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		kernel[string(m[1])] = n
	}
	ours := map[string]int{
		"KH_MAX_OPS": MaxOps, "KH_MAX_SLOTS": MaxSlots, "KH_MAX_VALUE": MaxValue, "KH_MAX_OUT": MaxOut, "KH_POOL_BYTES": poolBytes,
		"KH_MAX_WAITING": MaxWaiting,
		"KH_MAX_CALLERS": MaxCallers,
		"KH_MAX_REGS":    maxRegs,
		"KH_OP_END":      int(OpEnd), "KH_OP_REG": int(OpReg), "KH_OP_LOAD": int(OpLoad), "KH_OP_EMIT": int(OpEmit), "KH_OP_BYTES": int(OpBytes),
		"KH_OP_CSTR": int(OpCStr), "KH_OP_IF_INT": int(OpIfInt), "KH_OP_IF_BYTES": int(OpIfBytes), "KH_OP_IF_CSTR": int(OpIfCStr),
		"KH_OP_TEST": int(OpTest), "KH_MAX_SETS": maxSets,
		"KH_KEEP": int(ActKeep), "KH_LENGTH": int(ActLength), "KH_DIGEST": int(ActDigest), "KH_PREFIX": int(ActPrefix), "KH_SUFFIX": int(ActSuffix),
		"KH_DETECT": int(ActDetect), "KH_ALLOW": int(ActAllow), "KH_BUCKET": int(ActBucket),
		"KH_TRUNCATED": int(FlagTruncated), "KH_WITHHELD": int(FlagWithheld), "KH_UNFINISHED": int(ReasonUnfinished), "KH_NOT_ALLOWED": int(ReasonNotAllowed),
		"KH_EQ": int(CmpEQ), "KH_NE": int(CmpNE), "KH_LT": int(CmpLT), "KH_LE": int(CmpLE), "KH_GT": int(CmpGT), "KH_GE": int(CmpGE),
		"KH_SIGNED": int(CmpSigned),
		"KH_OK":     int(ReasonOK), "KH_NIL": int(ReasonNil), "KH_FAULT": int(ReasonFault), "KH_BAD_LENGTH": int(ReasonBadLength), "KH_ADDRESS": int(ReasonAddress),
	}
	for name, n := range ours {
		if k, ok := kernel[name]; !ok || k != uint64(n) {
			t.Errorf("%s is %d here and %d (known: %v) in bpf/types.h", name, n, k, ok)
		}
	}
	for name := range kernel { // what the kernel learns, the plan has to learn
		for _, prefix := range []string{"KH_OP_", "KH_NIL", "KH_FAULT", "KH_BAD", "KH_UNFIN", "KH_NOT"} {
			if _, known := ours[name]; strings.HasPrefix(name, prefix) && !known {
				t.Errorf("bpf/types.h has %s, and there is no constant for it here", name)
			}
		}
	}
	for name, want := range map[string]int{"kh_record": RecordHeaderBytes, "kh_value": ValueHeaderBytes, "kh_op": 16} {
		if got := structSize(t, string(header), name); got != want {
			t.Errorf("struct %s has %d bytes in bpf/types.h and %d here", name, got, want)
		}
	}
}

// structSize adds up the members of a struct; those that are shared leave no gaps.
func structSize(t *testing.T, header, name string) int {
	t.Helper()
	_, body, found := strings.Cut(header, "struct "+name+" {\n")
	body, _, closed := strings.Cut(body, "\n};")
	if !found || !closed {
		t.Fatalf("no struct %s in bpf/types.h", name)
	}
	sizes := map[string]int{"__u8": 1, "__u16": 2, "__u32": 4, "__s32": 4, "__u64": 8, "char": 1, "enum": 1}
	total := 0
	for _, m := range regexp.MustCompile(`(?m)^\t(__[us]\d+|char|enum)(?: kh_\w+)? \w+(?:\[(\d+)\])?;`).FindAllStringSubmatch(body, -1) {
		n := 1
		if m[2] != "" {
			n, _ = strconv.Atoi(m[2])
		}
		total += n * sizes[m[1]]
	}
	return total
}

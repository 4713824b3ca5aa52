// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A mutant is a program with one instruction changed.
type mutant struct {
	class string
	at    int
	to    asm.Instruction
}

// most of a class in each program: there are many places for some of them.
const mostOfAClass = 3

// mutants changes a program where it can be reached on a way that the linter follows with any tables: none of these instructions is one that
// every verifier would take out as dead.
func mutants(t *testing.T, p *ebpf.ProgramSpec, spec *ebpf.CollectionSpec, kernel bool) []mutant {
	t.Helper()
	slots := map[int]asm.Register{}           // a register that holds a slot's address there
	in := make([]string, len(p.Instructions)) // the function that it is of
	for at, i := range p.Instructions {
		if in[at] = i.Symbol(); in[at] == "" {
			in[at] = in[at-1]
		}
	}
	reached := make([]bool, len(p.Instructions))
	zeroes, sinks := map[int]bool{}, map[int]bool{} // where a part of a slot is zeroed, and where another map is written to
	if err := lintFlow(p, spec, kernel, func(at int, s *state) {
		reached[at] = true
		for r := asm.R0; r <= asm.R9; r++ {
			if v := s.regs[r]; v.kind == mapValue && v.name() == scratchMap && v.lo == 0 && v.hi == 0 && !v.null {
				slots[at] = r
			}
		}
		i := p.Instructions[at]
		if i.IsBuiltinCall() && asm.BuiltinFunc(i.Constant) == asm.FnProbeReadUser && s.regs[3].isConstant() && s.regs[3].lo == -1 {
			zeroes[at] = true
		}
		if d := s.regs[i.Dst]; i.OpCode.Class() == asm.StXClass && d.kind == mapValue && d.name() != scratchMap {
			sinks[at] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	var all []mutant
	count := map[string]int{}
	add := func(class string, at int, to asm.Instruction) {
		if old := p.Instructions[at]; count[class] < mostOfAClass && reached[at] {
			count[class]++
			if old.Symbol() != "" {
				to = to.WithSymbol(old.Symbol())
			}
			all = append(all, mutant{class, at, to})
		}
	}
	// set is the instruction that gives an argument of a call its value, right before it; -1 if that is not so simple.
	set := func(call int, r asm.Register) int {
		for at := call - 1; at > max(0, call-8); at-- {
			i := p.Instructions[at]
			if i.OpCode.JumpOp() != asm.InvalidJumpOp {
				return -1
			}
			if i.Dst == r && i.OpCode.Class() != asm.StXClass && i.OpCode.Class() != asm.StClass {
				return at
			}
		}
		return -1
	}
	instead := func(class string, call int, r asm.Register, to asm.Instruction) {
		if at := set(call, r); at >= 0 && p.Instructions[at].OpCode.Class().IsALU() && p.Instructions[at].Width() == to.Width() {
			add(class, at, to)
		}
	}
	forbidden := []asm.BuiltinFunc{asm.FnProbeWriteUser, asm.FnSendSignal, asm.FnTracePrintk, asm.FnRingbufReserve, asm.FnPerfEventOutput, asm.FnOverrideReturn}
	for at, i := range p.Instructions {
		f := asm.FnUnspec
		if i.IsBuiltinCall() {
			f = asm.BuiltinFunc(i.Constant)
			if f != asm.FnRingbufOutput && f != asm.FnTailCall {
				add("a second output", at, asm.FnRingbufOutput.Call())
				add("a forbidden helper", at, forbidden[count["a forbidden helper"]%len(forbidden)].Call())
			}
		}
		switch {
		case f == asm.FnRingbufOutput:
			instead("an unbounded length", at, asm.R3, asm.Mov.Imm(asm.R3, 1<<20))
			instead("output from elsewhere", at, asm.R2, asm.Mov.Reg(asm.R2, asm.RFP))
			instead("unknown flags", at, asm.R4, asm.Mov.Imm(asm.R4, 64))
		case f == asm.FnProbeReadUserStr || f == asm.FnProbeReadUser || f == asm.FnProbeReadKernel || f == asm.FnProbeReadKernelStr:
			if zeroes[at] {
				add("a skipped zeroing", at, asm.Mov.Imm(asm.R0, 0))
				instead("a zeroing of less", at, asm.R3, asm.Mov.Imm(asm.R3, 1))
			} else if s := set(at, asm.R1); s >= 0 {
				instead("an unbounded length", at, asm.R2, asm.Mov.Imm(asm.R2, 1<<20))
			}
		case f == asm.FnLoop:
			instead("an unbounded loop", at, asm.R1, asm.Mov.Imm(asm.R1, 1<<24))
			instead("unknown flags", at, asm.R4, asm.Mov.Imm(asm.R4, 64))
		case f == asm.FnMapUpdateElem:
			instead("unknown flags", at, asm.R4, asm.Mov.Imm(asm.R4, 64))
		case sinks[at]:
			if s := set(at, i.Src); s >= 0 {
				if slot, ok := slots[s]; ok && p.Instructions[s].OpCode.Class().IsALU() {
					add("the input in another map", s, asm.LoadMem(i.Src, slot, 8, asm.DWord))
				}
			}
		case i.OpCode.JumpOp() == asm.JGT && i.OpCode.Source() == asm.ImmSource && (i.Constant == 12288 || i.Constant == 16384) && in[at] == p.Name:
			add("a comparison taken out", at, asm.Mov.Reg(i.Dst, i.Dst))
		case i.IsLoadFromMap() && i.Src == asm.PseudoMapFD:
			for from, to := range map[string]string{"kh_ring": "kh_groups", "kh_counts": "kh_control", "kh_state": "kh_patterns", "kh_tops": "kh_groups", scratchMap: "kh_histogram"} {
				if i.Reference() == from && from != "kh_tops" {
					add("another map: "+to+" for "+from, at, asm.LoadMapPtr(i.Dst, 0).WithReference(to))
				}
			}
		case i.OpCode.Class().IsStore() && i.OpCode.Mode() != asm.AtomicMode:
			if slot, ok := slots[at]; ok && slot == i.Dst && i.Offset == 0 {
				add("a slot that is not given back", at, asm.Mov.Reg(asm.R9, asm.R9))
			}
			if s := set(at, i.Src); s >= 0 && i.Offset >= 4128 && i.Offset < 4128+40 && in[at] != copier {
				if slot, ok := slots[s]; ok && p.Instructions[s].OpCode.Class().IsALU() {
					add("the input in the record", s, asm.LoadMem(i.Src, slot, 8, asm.DWord))
				}
			}
		}
	}
	return all
}

// TestMutants changes the programs of all objects, one instruction or one map at a time, in ways that would let out what must not. Each has to
// be refused.
func TestMutants(t *testing.T) {
	if testkit.RaceDetector {
		t.Skip("computes for minutes with the race detector, in one goroutine: make test runs this without it")
	}
	counts, caught := map[string]int{}, 0
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		spec, err := ebpf.LoadCollectionSpec(name)
		if err != nil {
			t.Fatal(err)
		}
		kernel := objects[name][0] == KprobeProgKhKprobe
		for _, m := range []string{scratchMap, "kh_calls", "kh_tops", "kh_control", "kh_patterns"} {
			for _, flag := range []uint32{unix.BPF_F_WRONLY, unix.BPF_F_RDONLY_PROG, unix.BPF_F_MMAPABLE} {
				changed := spec.Copy()
				changed.Maps[m].Flags ^= flag
				counts["another right"]++
				if Lint(changed, kernel) == nil {
					t.Errorf("%s: the map %s with flag %#x changed is let through", name, m, flag)
				}
				caught++
			}
		}
		for _, program := range slices.Sorted(maps.Keys(spec.Programs)) {
			p := spec.Programs[program]
			for _, m := range mutants(t, p, spec, kernel) {
				changed := p.Copy()
				changed.Instructions = slices.Clone(p.Instructions)
				changed.Instructions[m.at] = m.to
				class, _, _ := strings.Cut(m.class, ":")
				counts[class]++
				err := lintCalls(changed, kernel)
				if err == nil {
					err = lintFlow(changed, spec, kernel, nil)
				}
				if err == nil {
					t.Errorf("%s: %s: %s: instruction %d, %v in place of %v, is let through", name, program, m.class, m.at, m.to, p.Instructions[m.at])
					continue
				}
				caught++
			}
		}
	}
	total := 0
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%4d of %s", counts[class], class)
		total += counts[class]
	}
	if t.Logf("%d of %d mutants are caught", caught, total); total < 200 {
		t.Errorf("%d mutants; want at least 200", total)
	}
}

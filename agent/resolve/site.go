// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/keyhole-dev/keyhole/internal/goabi"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxCode bounds a function: what is proved about a site is proved by reading all of its function.
const maxCode = 4 << 20

// A span is a contiguous part of a function. GCC puts the unlikely part of a function elsewhere.
type span struct {
	address uint64
	text    []byte
}

// code is a function's instructions as the file has them.
type code struct {
	p     *program
	isGo  bool
	spans []span // the first begins with the function's first instruction
}

func (p *program) code(f *function) (*code, error) {
	ranges, err := p.ranges(f)
	if err != nil {
		return nil, err
	}
	c := &code{p: p, isGo: p.isGo && (f.debug == nil || f.debug.IsGo)}
	total := uint64(0)
	for _, r := range ranges {
		size := r[1] - r[0]
		if total += size; r[1] <= r[0] || total > maxCode {
			return nil, fmt.Errorf("its code is said to be %d bytes; at most %d are read", total, maxCode)
		}
		if _, err := p.file.FileOffset(r[0]); err != nil {
			return nil, err
		}
		text, err := p.file.Memory(r[0], int(size))
		if err != nil {
			return nil, err
		}
		if uint64(len(text)) < size {
			return nil, fmt.Errorf("its code is said to end at %#x, behind the segment's end", r[1])
		}
		c.spans = append(c.spans, span{r[0], text})
	}
	return c, nil
}

// ranges are where a function's code is, the part with its first instruction first.
func (p *program) ranges(f *function) ([][2]uint64, error) {
	if f.debug != nil {
		for i, r := range f.debug.Ranges {
			if r[0] == f.address {
				ranges := [][2]uint64{r}
				ranges = append(ranges, f.debug.Ranges[:i]...)
				return append(ranges, f.debug.Ranges[i+1:]...), nil
			}
		}
	}
	end := p.symbols.End(f.address)
	if end == 0 {
		return nil, errors.New("nothing says where its code ends")
	}
	// A symbol without a size is taken to end where the next one begins, which may be behind the padding of another section.
	if limit := p.file.CodeEnd(f.address); limit != 0 {
		end = min(end, limit)
	}
	ranges := [][2]uint64{{f.address, end}}
	for _, s := range p.symbols {
		if strings.HasSuffix(s.Name, ".cold") && strings.TrimSuffix(s.Name, ".cold") == f.name && s.Size > 0 {
			ranges = append(ranges, [2]uint64{s.Address, s.Address + s.Size})
		}
	}
	return ranges, nil
}

// site proves a place for a probe of the function's calls. For a Go function it is behind the stack check, since the code that makes
// the stack larger runs the function again from its first instruction; else it is the first instruction.
func (c *code) site() (target.Site, error) {
	first := c.spans[0]
	low := first.address
	if !c.isGo {
		return c.prove(low, "entry", nil)
	}
	check, ok := goabi.FindStackCheck(first.text, low)
	if ok && c.growsStack(check.Call) {
		back := map[uint64]bool{check.Back: true}
		site, err := c.prove(check.End, "after the stack check", back)
		if err == nil {
			return site, nil
		}
		site, atEntry := c.prove(low, "entry, since it is not proved safe after the stack check: a call that grows the stack counts twice", back)
		if atEntry != nil {
			return target.Site{}, err
		}
		return site, nil
	}
	where := "entry"
	back := c.growths()
	if len(back) > 0 {
		where = "entry, since the stack check has a shape that is not known: a call that grows the stack counts twice"
	}
	return c.prove(low, where, back)
}

// growsStack says whether a call of an address is one of runtime.morestack. Where no symbol says what is there, the shape of
// the code around it has to do.
func (c *code) growsStack(called uint64) bool {
	names := c.p.symbols.At(called)
	for _, s := range names {
		if strings.HasPrefix(s.Name, "runtime.morestack") {
			return true
		}
	}
	return len(names) == 0
}

// growths finds the jumps to the first instruction that follow a call of runtime.morestack.
func (c *code) growths() map[uint64]bool {
	jumps := make(map[uint64]bool)
	first := c.spans[0]
	grown := false
	for at := 0; at < len(first.text); {
		i, ok := decode(first.text[at:])
		if !ok {
			return jumps
		}
		pc := first.address + uint64(at)
		at += i.Len
		to, direct := branchTarget(i, pc)
		switch {
		case i.Op == x86asm.CALL:
			grown = direct && len(c.p.symbols.At(to)) > 0 && c.growsStack(to)
		case i.Op == x86asm.JMP && direct && to == first.address && grown:
			jumps[pc] = true
		case i.Op == x86asm.JMP, i.Op == x86asm.RET:
			grown = false
		}
	}
	return jumps
}

// prove shows that a breakpoint at an address, which is reached in a straight line from the function's first instruction, is hit once
// in each run from there and harms nothing. The jumps in back are those from runtime.morestack. Behind NOPs that a kernel
// might rewrite, the next instruction is as good.
func (c *code) prove(at uint64, where string, back map[uint64]bool) (target.Site, error) {
	first := c.spans[0]
	for pc := first.address; ; {
		offset := pc - first.address
		if offset >= uint64(len(first.text)) {
			return target.Site{}, errors.New("the place for the probe is not where one of its instructions begins")
		}
		i, ok := decode(first.text[offset:])
		raw := first.text[offset:]
		if !ok || offset+uint64(i.Len) > uint64(len(first.text)) {
			return target.Site{}, fmt.Errorf("the instruction at +%#x (% x) cannot be decoded", offset, raw[:min(len(raw), 8)])
		}
		raw = raw[:i.Len]
		if pc < at {
			if isVector(raw) {
				return target.Site{}, fmt.Errorf("before the place for the probe there is a vector instruction (+%#x), whose length is not beyond doubt", offset)
			}
			pc += uint64(i.Len)
			continue
		}
		if pc > at {
			return target.Site{}, errors.New("the place for the probe lies inside an instruction")
		}
		if isRewrittenNOP(i) {
			pc += uint64(i.Len)
			at = pc
			where += fmt.Sprintf(", behind a NOP of %d bytes, which kernels rewrite over what a function may keep below its stack pointer", i.Len)
			continue
		}
		if err := safe(i, raw); err != nil {
			return target.Site{}, err
		}
		if err := c.unreached(at, i.Len, back); err != nil {
			return target.Site{}, err
		}
		return target.Site{Address: at, Bytes: append([]byte{}, raw...), Where: where}, nil
	}
}

// isRewrittenNOP recognises the NOPs that kernels from 6.18 replace by a call, which overwrites what leaf functions keep
// below the stack pointer.
func isRewrittenNOP(i x86asm.Inst) bool { return i.Op == x86asm.NOP && (i.Len == 5 || i.Len == 10) }

// safe says why a breakpoint on an instruction is refused. The kernel runs the instruction elsewhere or emulates it
// (arch/x86/kernel/uprobes.c), which it does for nearly all; here are those that functions begin with.
func safe(i x86asm.Inst, raw []byte) error {
	if raw[0] == 0xcc {
		return errors.New("a breakpoint is in the file itself at the place for the probe")
	}
	for _, b := range raw {
		switch b {
		case 0x26, 0x2e, 0x36, 0x3e, 0xf0:
			return fmt.Errorf("the instruction at the place for the probe (% x) has a prefix that the kernel refuses", raw)
		case 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3:
			continue
		}
		break
	}
	if isVector(raw) || !isOrdinary[i.Op] {
		return fmt.Errorf("the instruction at the place for the probe (% x, %v) is none of those known to be safe", raw, i.Op)
	}
	return nil
}

// isOrdinary are the instructions that a probe may sit on.
var isOrdinary = func() map[x86asm.Op]bool {
	m := make(map[x86asm.Op]bool)
	for _, o := range []x86asm.Op{
		x86asm.ADD, x86asm.ADC, x86asm.SUB, x86asm.SBB, x86asm.AND, x86asm.OR, x86asm.XOR, x86asm.NOT, x86asm.NEG, x86asm.INC, x86asm.DEC,
		x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.BSF, x86asm.BSR, x86asm.BSWAP, x86asm.TZCNT, x86asm.LZCNT, x86asm.POPCNT,
		x86asm.SHL, x86asm.SHR, x86asm.SAR, x86asm.ROL, x86asm.ROR, x86asm.SHLD, x86asm.SHRD, x86asm.IMUL, x86asm.MUL,
		x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.LEA, x86asm.PUSH, x86asm.POP, x86asm.LEAVE, x86asm.XCHG,
		x86asm.CBW, x86asm.CWDE, x86asm.CDQE, x86asm.CWD, x86asm.CDQ, x86asm.CQO, x86asm.NOP,
		x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG, x86asm.CMOVGE, x86asm.CMOVL, x86asm.CMOVLE,
		x86asm.CMOVNE, x86asm.CMOVNS, x86asm.CMOVS, x86asm.SETA, x86asm.SETAE, x86asm.SETB, x86asm.SETBE, x86asm.SETE, x86asm.SETG, x86asm.SETGE,
		x86asm.SETL, x86asm.SETLE, x86asm.SETNE, x86asm.SETNS, x86asm.SETS,
		x86asm.CALL, x86asm.RET, x86asm.JMP, x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JE, x86asm.JG, x86asm.JGE, x86asm.JL, x86asm.JLE,
		x86asm.JNE, x86asm.JNO, x86asm.JNP, x86asm.JNS, x86asm.JO, x86asm.JP, x86asm.JS,
		x86asm.MOVAPS, x86asm.MOVUPS, x86asm.MOVAPD, x86asm.MOVUPD, x86asm.MOVDQA, x86asm.MOVDQU, x86asm.MOVD, x86asm.MOVQ, x86asm.MOVSS, x86asm.MOVSD_XMM,
		x86asm.XORPS, x86asm.XORPD, x86asm.PXOR, x86asm.PAND, x86asm.ANDPS, x86asm.ANDPD, x86asm.ADDSD, x86asm.ADDSS, x86asm.SUBSD, x86asm.SUBSS,
		x86asm.MULSD, x86asm.MULSS, x86asm.DIVSD, x86asm.DIVSS, x86asm.UCOMISD, x86asm.UCOMISS, x86asm.COMISD, x86asm.COMISS,
		x86asm.CVTSI2SD, x86asm.CVTSI2SS, x86asm.CVTTSD2SI, x86asm.CVTTSS2SI, x86asm.CVTSS2SD, x86asm.CVTSD2SS, x86asm.SQRTSD, x86asm.SQRTSS,
		x86asm.PUNPCKLQDQ, x86asm.MOVHPS, x86asm.MOVLPS,
	} {
		m[o] = true
	}
	return m
}()

// place fills in where the site is in the file and in the process.
func (p *program) place(s *target.Site) error {
	var err error
	if s.FileOffset, err = p.file.FileOffset(s.Address); err != nil {
		return err
	}
	maps, err := procfs.ParseMaps(p.in.Maps)
	if err != nil {
		return err
	}
	id := p.identity
	for _, m := range maps {
		// On filesystems with subvolumes or layers the kernel shows another device here than stat does; then the path speaks.
		if m.Inode != id.Inode || m.Device != id.Device && m.Path != id.Path {
			continue
		}
		if s.FileOffset < m.Offset || s.FileOffset-m.Offset >= m.End-m.Start || !m.Executable {
			continue
		}
		if m.Writable || !m.Private {
			return fmt.Errorf("the process maps its code at %#x writable or shared, where the kernel puts no probe", m.Start)
		}
		s.RuntimeAddress = m.Start + (s.FileOffset - m.Offset)
		return nil
	}
	return fmt.Errorf("process %d does not map the code of %s there", id.PID, id.Path)
}

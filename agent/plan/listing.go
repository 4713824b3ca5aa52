// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Listing is the plan for people: one op a line in the order in which the kernel walks them, what each value leaves as and
// by which rule, then the values that no op reads.
//
//	main.(*Cart).Checkout  at 0x49f8af (after the stack check)
//	   0  s0 = r8
//	   1  only if s0 > 10 (signed, 8 bytes)            qty > 10     default/scalar
//	      -- at most 50/s, 8388608 bytes --
//	   2  s1 = rdi
//	   3  s2 = rsi
//	   4  emit ≤256 bytes of [s1, len s2] as suffix:4   card         payments/card
//	      not read: redacted                            c.password   names/secret
//	      a record has at most 352 bytes
func (p *Plan) Listing() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", p.Function)
	for i, s := range p.Sites {
		separator := "  at "
		if i > 0 {
			separator = ", "
		}
		if s.Symbol != "" {
			fmt.Fprintf(&b, "%s%s of the kernel", separator, s.Symbol)
		} else {
			fmt.Fprintf(&b, "%s%#x", separator, s.Address)
		}
		if s.Where != "" {
			fmt.Fprintf(&b, " (%s)", s.Where)
		}
	}
	b.WriteByte('\n')

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	line := func(number, text string, notes ...string) {
		notes = append(notes, "", "")[:2] // every line has all columns, so that they are as wide from top to bottom
		fmt.Fprintf(w, "%4s  %s\t%s\t%s\n", number, text, notes[0], notes[1])
	}
	l := lister{plan: p, fields: p.AllFields(), conditions: p.Conditions}
	if p.Returns != nil {
		l.conditions = slices.Concat(p.Conditions, p.Returns.Conditions)
	}
	if p.Limits.Sample > 1 {
		line("", fmt.Sprintf("-- 1 hit of %d --", p.Limits.Sample))
	}
	r := p.Returns
	for i := range len(p.Ops) + 1 {
		if i == p.IfEnd && r == nil {
			line("", "-- "+p.Limits.admits()+" --")
		}
		if r != nil && i == r.Start {
			line("", fmt.Sprintf("-- waits for its return%s, by %s; at most %d do --", r.seen(), r.By, p.MaxWaitingCalls()))
			if r.SlowerThan > 0 {
				line("", fmt.Sprintf("only if it took %v or more", r.SlowerThan))
			}
		}
		if r != nil && i == r.IfEnd {
			line("", "-- "+p.Limits.admits()+" --")
		}
		if i < len(p.Ops) {
			text, notes := l.op(p.Ops[i])
			line(strconv.Itoa(i), text, notes...)
		}
	}
	for _, f := range p.AllFields() {
		switch {
		case f.Emits:
		case f.Detail != "":
			line("", "not read: "+f.Missing+", "+f.Detail, f.Path, f.Rule)
		default:
			line("", "not read: "+f.Missing, f.Path, f.Rule)
		}
	}
	if p.Stack != nil {
		line("", fmt.Sprintf("then the addresses of at most %d callers, by frame pointers", p.Stack.Callers))
	}
	line("", fmt.Sprintf("a record has at most %d bytes", p.MaxRecordBytes()))
	if err := w.Flush(); err != nil {
		panic("plan: a strings.Builder takes everything: " + err.Error())
	}
	for row := range strings.Lines(table.String()) {
		b.WriteString(strings.TrimRight(row, " \n") + "\n")
	}
	return b.String()
}

// seen says how a return is seen, if not at a return instruction.
func (r *Returns) seen() string {
	if r.ByKernel {
		return ", which the kernel's return probe sees"
	}
	return ""
}

// admits says what a hit that the conditions let through is held against.
func (l *Limits) admits() string {
	text := fmt.Sprintf("at most %d/s, %d bytes", l.Rate, l.MaxBytes)
	if l.MaxHits > 0 {
		text += fmt.Sprintf(", %d events", l.MaxHits)
	}
	return text
}

// lister walks the ops and knows which condition or field each one is for.
type lister struct {
	plan             *Plan
	fields           []Field
	conditions       []Condition
	condition, field int
	goroutine        bool
}

func (l *lister) op(op Op) (text string, notes []string) {
	src := fmt.Sprintf("s%d", op.Src)
	switch op.Code {
	case OpReg:
		text = fmt.Sprintf("s%d = %s", op.Dst, registerName(l.plan.Identity.Arch, int(op.Arg)))
		if op.N > 0 {
			text += fmt.Sprintf(" >> %d", 8*op.N)
		}
		return text, nil
	case OpLoad:
		text = fmt.Sprintf("s%d = *(%s)", op.Dst, plus(src, op.Off))
		if op.Arg != 8 {
			text += fmt.Sprintf(", %s", count(int(op.Arg), "byte"))
		}
		return text + where(op), nil
	case OpTest:
		return fmt.Sprintf("s%d = %s != 0", op.Dst, src), nil
	case OpEmit:
		return l.emitting(fmt.Sprintf("emit %s of %s", count(int(op.Arg), "byte"), src))
	case OpBytes:
		return l.emitting(fmt.Sprintf("emit ≤%d bytes of [%s, len s%d]%s", op.N, plus(src, op.Off), op.Dst, where(op)))
	case OpCStr:
		return l.emitting(fmt.Sprintf("emit ≤%d bytes of [%s, to NUL]%s", op.N, plus(src, op.Off), where(op)))
	case OpIfInt:
		signed := "unsigned"
		value := strconv.FormatUint(l.constant(op.Aux), 10)
		if uint8(op.N)&CmpSigned != 0 {
			signed, value = "signed", strconv.FormatInt(int64(l.constant(op.Aux)), 10)
		}
		return l.comparing(fmt.Sprintf("only if %s %s %s (%s, %s)", src, sign(uint8(op.N)), value, signed, count(int(op.Arg), "byte")))
	case OpIfBytes:
		return l.comparing(fmt.Sprintf("only if [%s, len s%d] %s %s", plus(src, op.Off), op.Dst, sign(op.Arg), l.text(op)))
	case OpIfCStr:
		return l.comparing(fmt.Sprintf("only if [%s, to NUL] %s %s", plus(src, op.Off), sign(op.Arg), l.text(op)))
	default:
		return fmt.Sprintf("unknown op %+v", op), nil
	}
}

// where says whose memory an op in the kernel reads, if it is not the kernel's.
func where(op Op) string {
	if op.User {
		return " in the process"
	}
	return ""
}

func (l *lister) emitting(text string) (string, []string) {
	if l.plan.Goroutine && !l.goroutine {
		l.goroutine = true
		return text, []string{"goroutine"}
	}
	for l.field < len(l.fields) {
		f := &l.fields[l.field]
		l.field++
		if f.Emits {
			return text + " as " + f.Action, []string{f.Path, f.Rule}
		}
	}
	return text, nil
}

func (l *lister) comparing(text string) (string, []string) {
	if l.condition >= len(l.conditions) {
		return text, nil
	}
	c := &l.conditions[l.condition]
	l.condition++
	return text, []string{c.Text, c.Rule}
}

// constant and text do not trust the op: a listing is also printed of a plan that Verify refused.
func (l *lister) constant(aux uint16) uint64 {
	if int(aux)+8 > len(l.plan.Pool) {
		return 0
	}
	return binary.LittleEndian.Uint64(l.plan.Pool[aux:])
}

func (l *lister) text(op Op) string {
	if int(op.Aux)+int(op.N) > len(l.plan.Pool) {
		return "(not in the pool)"
	}
	return strconv.Quote(string(l.plan.Pool[op.Aux : int(op.Aux)+int(op.N)]))
}

func sign(compare uint8) string {
	signs := [...]string{CmpEQ: "==", CmpNE: "!=", CmpLT: "<", CmpLE: "<=", CmpGT: ">", CmpGE: ">="}
	if i := int(compare &^ CmpSigned); i < len(signs) {
		return signs[i]
	}
	return "?"
}

func plus(what string, off int32) string {
	switch {
	case off == 0:
		return what
	case off < 0:
		return fmt.Sprintf("%s-%#x", what, -int64(off))
	default:
		return fmt.Sprintf("%s+%#x", what, off)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Reads says from where the i-th of AllFields is read: the register, then what is added before each pointer is followed, such as
// "rax → +0x18 → +0x40". A string whose length does not lie right behind its pointer, as Go's lie, has both places: "rdi, rsi". It
// is read off the ops, so it is what the kernel does; empty for a field that no op reads.
func (p *Plan) Reads(i int) string {
	fields := p.AllFields()
	if i < 0 || i >= len(fields) || !fields[i].Emits {
		return ""
	}
	emitting := 0 // how many values leave before this one
	if p.Goroutine {
		emitting++
	}
	for _, f := range fields[:i] {
		if f.Emits {
			emitting++
		}
	}
	var slots [MaxSlots]way
	for _, op := range p.Ops {
		if op.Dst >= MaxSlots || op.Src >= MaxSlots {
			return ""
		}
		switch {
		case op.Code == OpReg:
			slots[op.Dst] = way{register: int(op.Arg), shift: int(op.N)}
		case op.Code == OpLoad:
			slots[op.Dst] = slots[op.Src].follow(op.Off)
		case op.Code == OpTest:
			slots[op.Dst] = slots[op.Src]
		case op.Code.emits() && emitting > 0:
			emitting--
		case op.Code.emits():
			return p.describe(op, slots[op.Src], slots[op.Dst])
		}
	}
	return ""
}

func (p *Plan) describe(op Op, data, length way) string {
	arch := p.Identity.Arch
	if op.Code == OpCStr || op.Code == OpBytes {
		if op.Off != 0 {
			data = data.follow(op.Off)
		}
		if op.Code == OpBytes && !length.rightBehind(data) {
			return data.String(arch) + ", " + length.String(arch)
		}
	}
	return data.String(arch)
}

// A way is how a slot got its value.
type way struct {
	register, shift int
	offsets         []int32
}

func (w way) follow(off int32) way {
	w.offsets = append(append([]int32(nil), w.offsets...), off)
	return w
}

// rightBehind says whether a length is loaded from the word behind the pointer that data is loaded from.
func (w way) rightBehind(data way) bool {
	n := len(w.offsets)
	if n == 0 || n != len(data.offsets) || w.register != data.register || w.shift != data.shift {
		return false
	}
	for i := range n - 1 {
		if w.offsets[i] != data.offsets[i] {
			return false
		}
	}
	return int64(w.offsets[n-1]) == int64(data.offsets[n-1])+8
}

// String is the way with the registers' names on an architecture.
func (w way) String(arch string) string {
	s := registerName(arch, w.register)
	if w.shift > 0 {
		s += fmt.Sprintf(" >> %d", 8*w.shift)
	}
	for _, off := range w.offsets {
		if off < 0 {
			s += fmt.Sprintf(" → -%#x", -int64(off))
		} else {
			s += fmt.Sprintf(" → +%#x", off)
		}
	}
	return s
}

// Registers by their DWARF numbers: System V ABI, AMD64 supplement, figure 3.36; DWARF for the Arm 64-bit architecture, 4.1.
var amd64Registers = [...]string{
	"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
}

func registerName(arch string, n int) string {
	switch {
	case arch == "amd64" && n < len(amd64Registers):
		return amd64Registers[n]
	case arch == "arm64" && n < 31:
		return "x" + strconv.Itoa(n)
	case arch == "arm64" && n == 31:
		return "sp"
	default:
		return "r" + strconv.Itoa(n)
	}
}

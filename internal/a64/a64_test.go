// SPDX-License-Identifier: Apache-2.0

package a64_test

import (
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/a64"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// pc is where the instructions of these tests are.
const pc = 0x10000

// The words are GNU as's.
func TestInstructions(t *testing.T) {
	for name, c := range map[string]struct {
		word a64.Instruction
		kind a64.Kind
		to   uint64 // 0: it does not say
		why  string // of what refuses a probe; empty: none
	}{
		"b .+8":                {0x14000002, a64.Jump, pc + 8, ""},
		"b .-4":                {0x17ffffff, a64.Jump, pc - 4, ""},
		"bl .+0x100":           {0x94000040, a64.Call, pc + 0x100, ""},
		"b.ls .-8":             {0x54ffffc9, a64.Conditional, pc - 8, ""},
		"bc.eq .+8":            {0x54000050, a64.Conditional, pc + 8, "does not do in its place"},
		"cbz x0, .+8":          {0xb4000040, a64.Conditional, pc + 8, ""},
		"cbnz w1, .-4":         {0x35ffffe1, a64.Conditional, pc - 4, ""},
		"tbz w1, 0, .+16":      {0x36000081, a64.Conditional, pc + 16, ""},
		"tbnz x2, 33, .-16":    {0xb70fff82, a64.Conditional, pc - 16, ""},
		"cbgt x0, x1, .+8":     {0xf4010040, a64.Conditional, pc + 8, "does not do in its place"},
		"br x16":               {0xd61f0200, a64.Jump, 0, ""},
		"blr x1":               {0xd63f0020, a64.Call, 0, ""},
		"ret":                  {0xd65f03c0, a64.Return, 0, ""},
		"retaa":                {0xd65f0bff, a64.Return, 0, "authenticates"},
		"braa x0, x1":          {0xd71f0801, a64.Jump, 0, "authenticates"},
		"blraaz x0":            {0xd63f081f, a64.Call, 0, "authenticates"},
		"eret":                 {0xd69f03e0, a64.Trap, 0, "exception"},
		"brk 5":                {0xd42000a0, a64.Trap, 0, "exception"},
		"udf 0":                {0x00000000, a64.Trap, 0, "exception"},
		"svc 0":                {0xd4000001, a64.Straight, 0, "calls the kernel"},
		"msr tpidr_el0, x0":    {0xd51bd040, a64.Straight, 0, "state of the processor"},
		"mrs x0, tpidr_el0":    {0xd53bd040, a64.Straight, 0, ""},
		"mrs x0, daif":         {0xd53b4220, a64.Straight, 0, "state of the processor"},
		"dmb ish":              {0xd5033bbf, a64.Straight, 0, "state of the processor"},
		"nop":                  {0xd503201f, a64.Straight, 0, ""},
		"bti c":                {0xd503245f, a64.Straight, 0, ""},
		"paciasp":              {0xd503233f, a64.Straight, 0, ""},
		"autiasp":              {0xd50323bf, a64.Straight, 0, "hint"},
		"wfi":                  {0xd503207f, a64.Straight, 0, "hint"},
		"yield":                {0xd503203f, a64.Straight, 0, "hint"},
		"paciasppc":            {0xdac1a3fe, a64.Straight, 0, "together with its own"},
		"pacia x0, x1":         {0xdac10020, a64.Straight, 0, ""},
		"str x30, [sp, -64]!":  {0xf81c0ffe, a64.Straight, 0, ""},
		"stp x29, x30, [sp]":   {0xa9007bfd, a64.Straight, 0, ""},
		"ldr x0, [x1, x2]":     {0xf8626820, a64.Straight, 0, ""},
		"ldr x0, .+8":          {0x58000040, a64.Straight, 0, "beside the code"},
		"ldr q0, .+8":          {0x9c000040, a64.Straight, 0, "beside the code"},
		"prfm pldl1keep, .+8":  {0xd8000040, a64.Straight, 0, "beside the code"},
		"ldxr x0, [x1]":        {0xc85f7c20, a64.Straight, 0, "exclusive"},
		"stxr w0, x1, [x2]":    {0xc8007c41, a64.Straight, 0, "exclusive"},
		"ldar x0, [x1]":        {0xc8dffc20, a64.Straight, 0, ""},
		"cas x0, x1, [x2]":     {0xc8a07c41, a64.Straight, 0, ""},
		"ldadd x0, x1, [x2]":   {0xf8200041, a64.Straight, 0, ""},
		"ldraa x0, [x1]":       {0xf8200420, a64.Straight, 0, "loads and stores known"},
		"cpyfp [x0]!,[x1]!,x2": {0x19010440, a64.Straight, 0, "loads and stores known"},
		"ld1 {v0.16b}, [x0]":   {0x4c407000, a64.Straight, 0, ""},
		"add x0, x1, 1":        {0x91000420, a64.Straight, 0, ""},
		"adrp x0, .":           {0x90000000, a64.Straight, 0, ""},
		"adr x0, .+4":          {0x10000020, a64.Straight, 0, ""},
		"fadd d0, d1, d2":      {0x1e622820, a64.Straight, 0, ""},
		"ptrue p0.b":           {0x2518e3e0, a64.Straight, 0, "known to be safe"},
		"unallocated":          {0x06000000, a64.Unallocated, 0, "no instruction"},
	} {
		if got := c.word.Kind(); got != c.kind {
			t.Errorf("%s: kind %d, want %d", name, got, c.kind)
		}
		if to, ok := c.word.Target(pc); ok != (c.to != 0) || to != c.to {
			t.Errorf("%s: leads to %#x (%v), want %#x", name, to, ok, c.to)
		}
		err := c.word.Probeable()
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
}

func TestAddresses(t *testing.T) {
	if at, n, ok := a64.Instruction(0x58000040).Literal(pc); !ok || at != pc+8 || n != 8 { // ldr x0, .+8
		t.Errorf("%#x, %d, %v", at, n, ok)
	}
	if at, n, ok := a64.Instruction(0x9cffffe0).Literal(pc); !ok || at != pc-4 || n != 16 { // ldr q0, .-4
		t.Errorf("%#x, %d, %v", at, n, ok)
	}
	if r, page, ok := a64.Instruction(0xf00008bb).Page(0xaaba0); !ok || r != 27 || page != 0x1c1000 {
		t.Errorf("%d, %#x, %v", r, page, ok)
	}
	if r, at, ok := a64.Instruction(0x10ffffe3).Label(pc); !ok || r != 3 || at != pc-4 { // adr x3, .-4
		t.Errorf("%d, %#x, %v", r, at, ok)
	}
	if to, from, n, ok := a64.Instruction(0xd10083ff).AddImmediate(); !ok || to != 31 || from != 31 || n != -32 { // sub sp, sp, 32
		t.Errorf("%d, %d, %d, %v", to, from, n, ok)
	}
	if _, ok := a64.At([]byte{1, 2, 3}); ok {
		t.Error("three bytes are an instruction")
	}
	if i, ok := a64.At(a64.Breakpoint[:]); !ok || i.Kind() != a64.Trap {
		t.Errorf("%#x is no breakpoint", uint32(i))
	}
}

// SPDX-License-Identifier: Apache-2.0

package goabi

import (
	"encoding/binary"
	"testing"
)

func words(list ...uint32) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// The checks are as Go 1.26 makes them; each branches over the two words of the function's own code.
func TestFindStackCheckOfARM64(t *testing.T) {
	const (
		loadGuard, loadGuard1 = 0xf9400b90, 0xf9400f90
		compare, compareSum   = 0xeb3063ff, 0xeb10023f
	)
	lower := func(n uint32) uint32 { return 0x54000003 | n<<5 }
	lowerOrSame := func(n uint32) uint32 { return 0x54000009 | n<<5 }
	// grow saves x0, calls what is 0x100 behind the call, restores x0 and jumps back; at is its place in words.
	grow := func(at int) []uint32 {
		return []uint32{0xf90007e0, 0xaa1e03e3, 0x94000040, 0xf94007e0, 0x14000000 | uint32(-(at+4))&0x3ffffff}
	}
	far := func(at int) []uint32 { // with an address in x27
		return []uint32{0x910823fb, 0xa9000760, 0xaa1e03e3, 0x94000040, 0x910823fb, 0xa9400760, 0x14000000 | uint32(-(at+6))&0x3ffffff}
	}
	for name, c := range map[string]struct {
		check []uint32
		grow  func(at int) []uint32
		none  bool
	}{
		"small frame":                 {check: []uint32{loadGuard, compare, lowerOrSame(3)}},
		"small frame, system stack":   {check: []uint32{loadGuard1, compare, lowerOrSame(3)}},
		"frame of some kilobytes":     {check: []uint32{loadGuard, 0xd10083f1, compareSum, lowerOrSame(3)}},
		"the same, number in x27":     {check: []uint32{loadGuard, 0xd283f61b, 0xcb3b63f1, compareSum, lowerOrSame(3)}},
		"large frame":                 {check: []uint32{loadGuard, 0xf13e43f1, lower(5), compareSum, lowerOrSame(3)}},
		"the same, larger":            {check: []uint32{loadGuard, 0xd283f61b, 0xeb3b63f1, lower(5), compareSum, lowerOrSame(3)}},
		"arguments far away":          {check: []uint32{loadGuard, compare, lowerOrSame(3)}, grow: far},
		"no check":                    {check: []uint32{0xd503201f}, none: true},
		"another field":               {check: []uint32{0xf9401390, compare, lowerOrSame(3)}, none: true},
		"another branch":              {check: []uint32{loadGuard, compare, 0x54000008 | 3<<5}, none: true},
		"compares the stack pointer":  {check: []uint32{loadGuard, 0xd10083f1, compare, lowerOrSame(3)}, none: true},
		"underflow not looked at":     {check: []uint32{loadGuard, 0xf13e43f1, compareSum, lowerOrSame(3)}, none: true},
		"grows nothing":               {check: []uint32{loadGuard, compare, lowerOrSame(3)}, grow: func(int) []uint32 { return []uint32{0xd65f03c0} }, none: true},
		"does not call":               {check: []uint32{loadGuard, compare, lowerOrSame(3)}, grow: func(int) []uint32 { return []uint32{0x17fffffb} }, none: true},
		"jumps back elsewhere":        {check: []uint32{loadGuard, compare, lowerOrSame(3)}, grow: func(at int) []uint32 { return grow(at + 1) }, none: true},
		"writes elsewhere than there": {check: []uint32{loadGuard, compare, lowerOrSame(3)}, grow: func(at int) []uint32 { return append([]uint32{0xf9000401}, grow(at+1)...) }, none: true},
	} {
		if c.grow == nil {
			c.grow = grow
		}
		behind := append(c.check, 0xd503201f, 0xd65f03c0)
		more := c.grow(len(behind))
		got, ok := ARM64.FindStackCheck(words(append(behind, more...)...), low)
		calls := uint64(low + 4*len(behind))
		for i, w := range more {
			if w == 0x94000040 {
				calls += uint64(4*i) + 0x100
			}
		}
		want := StackCheck{End: low + uint64(4*len(c.check)), Call: calls, Back: low + uint64(4*(len(behind)+len(more)-1))}
		switch {
		case ok == c.none:
			t.Errorf("%s: %+v, %v", name, got, ok)
		case ok && got != want:
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestStack: addresses become places in files, whatever the kernel chose to map them at.
func TestStack(t *testing.T) {
	p := planOf()
	p.Sites = []target.Site{{FileOffset: 0x1040, RuntimeAddress: 0x555555555040}}
	p.Stack = &plan.Stack{Callers: 5, Modules: []target.Module{
		{Name: "shop", Start: 0x555555555000, End: 0x555555557000, Offset: 0x1000, Own: true},
		{Name: "libc.so.6", Start: 0x7ffff7c26000, End: 0x7ffff7d7b000, Offset: 0x26000},
	}}
	callers := func(addresses ...uint64) part {
		var b []byte
		for _, a := range addresses {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		return part{bytes: string(b), length: uint32(len(addresses))}
	}
	e, err := decode.New(p, meta()).Decode(record(callers(0x555555555123, 0x555555557000, 0x7ffff7c4f24a, 0x1234, 0)))
	if err != nil {
		t.Fatal(err)
	}
	want := []event.Frame{
		{Offset: 0x1040},
		{Offset: 0x1123, Return: true},
		{Offset: 0x3000, Return: true}, // the call is the last instruction of what is mapped
		{Module: "libc.so.6", Offset: 0x4f24a, Return: true},
		{Module: event.UnknownModule, Return: true},
		{Module: event.UnknownModule, Return: true},
	}
	if !slices.Equal(e.Stack, want) || e.StackCut != "" {
		t.Errorf("%+v", e.Stack)
	}
	cut := callers(1)
	cut.truncated = 1
	if e, err = decode.New(p, meta()).Decode(record(cut)); err != nil || e.StackCut != event.CutDepth {
		t.Errorf("%+v, %v", e, err)
	}
	for what, parts := range map[string][]part{
		"too many": {callers(1, 2, 3, 4, 5, 6)}, "none": {}, "two": {callers(1), callers(2)},
	} {
		if e, err := decode.New(p, meta()).Decode(record(parts...)); err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/bpf"
)

// open opens a map of the session's program by its number, which takes CAP_SYS_ADMIN: what a descriptor of the loader
// cannot show, this one can.
func (s *session) open(t testing.TB, name string) *ebpf.Map {
	t.Helper()
	info, err := s.program.objects.atEntry.Info()
	if err != nil {
		t.Fatal(err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Name == name {
			return m
		}
	}
	t.Fatalf("the program has no map %s", name)
	return nil
}

// requireScratchZero looks into the slots: between hits they hold nothing.
func (s *session) requireScratchZero(t testing.TB) {
	t.Helper()
	m := s.open(t, bpf.UprobeMapKhScratch)
	for i := range m.MaxEntries() {
		slot, err := m.LookupBytes(i)
		if err != nil {
			t.Fatal(err)
		}
		if rest := bytes.TrimLeft(slot, "\x00"); len(rest) > 0 {
			t.Fatalf("slot %d of %d bytes is not zero from byte %d on: % x", i, len(slot), len(slot)-len(rest), rest[:min(len(rest), 64)])
		}
	}
}

// TestMapsAreClosedToUserSpace tries the descriptors that the loader itself has.
func TestMapsAreClosedToUserSpace(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", redact: "digest"})
	if _, err := s.program.objects.KhScratch.LookupBytes(uint32(0)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("reading the scratch: %v", err)
	}
	tables := s.open(t, configMap)
	value, err := tables.LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := tables.Put(uint32(0), value); !errors.Is(err, os.ErrPermission) {
		t.Errorf("writing the constants: %v", err)
	}
}

// remaining is how many of a program and its maps the kernel still holds.
func remaining(program ebpf.ProgramID, maps []ebpf.MapID) int {
	var n int
	if p, err := ebpf.NewProgramFromID(program); err == nil {
		p.Close()
		n++
	}
	for _, id := range maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			m.Close()
			n++
		}
	}
	return n
}

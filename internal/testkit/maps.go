// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// MapContents reads everything that the maps of ours in the kernel hold, by map name, as root can and no process of ours may:
// a ring buffer's pages with what was already taken out of it, the scratch pool, the frozen tables.
func MapContents(t testing.TB) map[string][]byte {
	t.Helper()
	contents := make(map[string][]byte)
	eachMap(t, func(name string, m *ebpf.Map) {
		if m.Type() == ebpf.RingBuf {
			ring := mapRing(t, m)
			contents[name] = append(contents[name], ring.data...)
			ring.unmap(t)
			return
		}
		key := make([]byte, m.KeySize())
		for i := range m.MaxEntries() {
			binary.NativeEndian.PutUint32(key, i)
			value, err := m.LookupBytes(key)
			if err != nil {
				t.Fatalf("read map %s: %v", name, err)
			}
			contents[name] = append(contents[name], value...)
		}
	})
	if len(contents) == 0 {
		t.Fatal("the kernel holds no map of ours")
	}
	return contents
}

// RingPending is the number of bytes that wait in the ring buffers of ours.
func RingPending(t testing.TB) uint64 {
	t.Helper()
	var pending uint64
	eachMap(t, func(_ string, m *ebpf.Map) {
		if m.Type() == ebpf.RingBuf {
			ring := mapRing(t, m)
			pending += ring.pending()
			ring.unmap(t)
		}
	})
	return pending
}

// DigestKey is the key under which the one session in the kernel digests values: struct kh_config of bpf/types.h.
func DigestKey(t testing.TB) []byte {
	t.Helper()
	var found []byte
	eachMap(t, func(name string, m *ebpf.Map) {
		offset, ok := keyOffset(t, m)
		if !ok {
			return
		}
		value, err := m.LookupBytes(uint32(0))
		if err != nil {
			t.Fatalf("read map %s: %v", name, err)
		}
		if found != nil {
			t.Fatal("more than one session is on")
		}
		found = value[offset : offset+16]
	})
	if bytes.Equal(found, make([]byte, 16)) || found == nil {
		t.Fatalf("no key in the maps of ours: %x", found)
	}
	return found
}

// keyOffset finds the key in the map that holds the program's frozen tables.
func keyOffset(t testing.TB, m *ebpf.Map) (uint32, bool) {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := info.BTFID()
	if !ok || info.ValueSize == 0 {
		return 0, false
	}
	handle, err := btf.NewHandleFromID(id)
	if err != nil {
		t.Fatalf("types of map %s: %v", info.Name, err)
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		t.Fatalf("types of map %s: %v", info.Name, err)
	}
	var section *btf.Datasec
	if err := spec.TypeByName(".rodata", &section); err != nil || section.Size != info.ValueSize {
		return 0, false
	}
	for _, entry := range section.Vars {
		variable, ok := entry.Type.(*btf.Var)
		if !ok {
			continue
		}
		config, ok := btf.UnderlyingType(variable.Type).(*btf.Struct)
		if !ok || config.Name != "kh_config" {
			continue
		}
		for _, member := range config.Members {
			if member.Name == "key" {
				return entry.Offset + member.Offset.Bytes(), true
			}
		}
	}
	return 0, false
}

func eachMap(t testing.TB, do func(name string, m *ebpf.Map)) {
	t.Helper()
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if err != nil {
			t.Fatalf("list maps: %v", err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // freed since it was listed
		}
		if err != nil {
			t.Fatalf("list maps: %v", err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatalf("list maps: %v", err)
		}
		if strings.HasPrefix(info.Name, NamePrefix) {
			do(info.Name, m)
		}
		m.Close()
	}
}

// A ring is a ring buffer's memory, mapped for reading only: a page with the reader's position, one with the writer's, the data.
type ring struct {
	consumer, producer, data []byte
}

func mapRing(t testing.TB, m *ebpf.Map) ring {
	t.Helper()
	page, size := os.Getpagesize(), int(m.MaxEntries())
	at := func(offset int64, n int) []byte {
		b, err := unix.Mmap(m.FD(), offset, n, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatalf("map ring buffer: %v", err)
		}
		return b
	}
	return ring{consumer: at(0, page), producer: at(int64(page), page), data: at(int64(2*page), size)}
}

func (r ring) pending() uint64 {
	return binary.NativeEndian.Uint64(r.producer) - binary.NativeEndian.Uint64(r.consumer)
}

func (r ring) unmap(t testing.TB) {
	t.Helper()
	for _, b := range [][]byte{r.consumer, r.producer, r.data} {
		if err := unix.Munmap(b); err != nil {
			t.Fatal(err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// MapContents reads everything that the maps of a session hold, by map name, as root can and no process of ours may: a
// ring buffer's pages with what was already taken out of it, the scratch pool, the frozen tables. The session is that of
// the process that holds it.
func MapContents(t testing.TB, holder int) map[string][]byte {
	t.Helper()
	contents := make(map[string][]byte)
	eachMap(t, holder, func(name string, m *ebpf.Map) {
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
	return contents
}

// RingPending is the number of bytes that wait in a session's ring buffer.
func RingPending(t testing.TB, holder int) uint64 {
	t.Helper()
	var pending uint64
	eachMap(t, holder, func(_ string, m *ebpf.Map) {
		if m.Type() == ebpf.RingBuf {
			ring := mapRing(t, m)
			pending += ring.pending()
			ring.unmap(t)
		}
	})
	return pending
}

// DigestKey is the key under which a session digests values: in struct kh_config of bpf/types.h.
func DigestKey(t testing.TB, holder int) []byte {
	t.Helper()
	var found []byte
	eachMap(t, holder, func(name string, m *ebpf.Map) {
		offset, ok := keyOffset(t, m)
		if !ok {
			return
		}
		value, err := m.LookupBytes(uint32(0))
		if err != nil {
			t.Fatalf("read map %s: %v", name, err)
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

// eachMap hands out the maps of the session whose holder is the process: those that the program uses which the holder's link keeps.
func eachMap(t testing.TB, holder int, do func(name string, m *ebpf.Map)) {
	t.Helper()
	program, err := ebpf.NewProgramFromID(linkedProgram(t, holder))
	if err != nil {
		t.Fatalf("program of process %d: %v", holder, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		t.Fatalf("program of process %d: %v", holder, err)
	}
	ids, ok := info.MapIDs()
	if !ok || len(ids) == 0 {
		t.Fatalf("program of process %d uses no maps", holder)
	}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatalf("map of process %d: %v", holder, err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatalf("map of process %d: %v", holder, err)
		}
		do(info.Name, m)
		m.Close()
	}
}

// linkedProgram is the program of the link that a process holds open, as the descriptor's fdinfo says it, or of the perf event where links are not used.
func linkedProgram(t testing.TB, holder int) ebpf.ProgramID {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", holder))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // closed since it was listed
		}
		_, rest, isLink := strings.Cut(string(data), "link_id:")
		_, rest, hasProgram := strings.Cut(rest, "prog_id:")
		if !isLink || !hasProgram {
			continue
		}
		var id ebpf.ProgramID
		if _, err := fmt.Sscan(rest, &id); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		return id
	}
	for _, file := range files {
		fd, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := eventProgram(holder, fd); ok {
			return id
		}
	}
	t.Fatalf("process %d holds no link", holder)
	return 0
}

// eventProgram is the program that is attached to a perf event that a process holds open.
func eventProgram(pid, fd int) (ebpf.ProgramID, bool) {
	query := struct { // task_fd_query of union bpf_attr in linux/bpf.h
		pid, fd, flags, nameBytes uint32
		name                      uint64
		program, kind             uint32
		offset, address           uint64
	}{pid: uint32(pid), fd: uint32(fd)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_TASK_FD_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
	return ebpf.ProgramID(query.program), errno == 0 && query.program != 0
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

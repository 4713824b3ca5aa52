// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestParseStat(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21\n"
	for name, want := range map[string]string{
		"1 (bash)":                    "bash",
		"1 (a b)":                     "a b",
		"1 (x) S 9 9) Z 0 (y)":        "x) S 9 9) Z 0 (y",
		"1 ()":                        "",
		"1 (with\nnewline) and more)": "with\nnewline) and more",
	} {
		got, err := ParseStat([]byte(name + tail))
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if got != (Stat{Comm: want, State: 'S', Parent: 1, StartTicks: 12345}) {
			t.Errorf("%q: %+v, want the name %q", name, got, want)
		}
	}
	for _, bad := range []string{"", "1", "1 (bash", ")1 (", "1 (bash) S 1 2", "1 (b) S" + strings.Repeat(" x", 30)} {
		if got, err := ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestParseStatOfThisProcess(t *testing.T) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Skip(err)
	}
	got, err := ParseStat(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.StartTicks == 0 || got.Comm == "" {
		t.Errorf("%+v", got)
	}
}

func TestParseMaps(t *testing.T) {
	got, err := ParseMaps([]byte(`00400000-00657000 r-xp 00001000 fe:01 1234                       /srv/my shop (deleted)
c000000000-c000400000 rw-p 00000000 00:00 0
7ffe1000-7ffe2000 r--s 00000000 103:100002 77 /x
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mapping{
		{Start: 0x400000, End: 0x657000, Offset: 0x1000, Device: 0xfe01, Inode: 1234, Executable: true, Private: true, Path: "/srv/my shop (deleted)"},
		{Start: 0xc000000000, End: 0xc000400000, Writable: true, Private: true},
		{Start: 0x7ffe1000, End: 0x7ffe2000, Device: 0x100010302, Inode: 77, Path: "/x"},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Executable: true, Private: true, Path: "[vsyscall]"},
	}
	want[2].Device = device(0x103, 0x100002)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"x", "1-2 r-xp 0 0:0", "2-1 r-xp 0 0:0 0 ", "1-2 rx 0 0:0 0 ", "1-2 r-xp 0 zz 0 ", "\n"} {
		if got, err := ParseMaps([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

// TestMapsOfThisProcess compares with what stat(2) says of the executable.
func TestMapsOfThisProcess(t *testing.T) {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	maps, err := ParseMaps(b)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(exe, &st); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(maps, func(m Mapping) bool {
		return m.Executable && m.Private && !m.Writable && m.Path == exe && m.Inode == st.Ino && m.Device == st.Dev
	}) {
		t.Errorf("no executable mapping of %s (device %#x, inode %d) in\n%s", exe, st.Dev, st.Ino, b)
	}
}

func TestRunning(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	pids, err := Running("/proc", exe)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(pids, os.Getpid()) || !slices.IsSorted(pids) {
		t.Errorf("%v does not hold %d", pids, os.Getpid())
	}
	if pids, err := Running("/proc", filepath.Join(t.TempDir(), "nobody")); err != nil || len(pids) > 0 {
		t.Errorf("%v, %v", pids, err)
	}
	if _, err := Running(filepath.Join(t.TempDir(), "none"), exe); err == nil {
		t.Error("a directory that does not exist was listed")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStat(b); err == nil && !strings.Contains(string(b), "("+s.Comm+")") {
			t.Errorf("the name %q is not in %q", s.Comm, b)
		}
	})
}

func FuzzParseMaps(f *testing.F) {
	f.Add([]byte("00400000-00657000 r-xp 00001000 fe:01 1234   /srv/my shop\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		maps, err := ParseMaps(b)
		if err != nil {
			return
		}
		for _, m := range maps {
			if m.End <= m.Start {
				t.Errorf("%+v is empty", m)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	goTarget = "test/targets/stacks"
	cTarget  = "test/targets/cstacks/main.c"
)

func open(t testing.TB, path string) *Table {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestGo compares with what the runtime of the program itself says, with and without debug information.
func TestGo(t *testing.T) {
	for name, flags := range map[string][]string{
		"plain":         nil,
		"stripped":      {"-ldflags=-s -w"},
		"pie":           {"-buildmode=pie"},
		"stripped pie":  {"-buildmode=pie", "-ldflags=-s -w"},
		"not optimised": {"-gcflags=all=-N -l"},
	} {
		t.Run(name, func(t *testing.T) {
			path := testkit.BuildGo(t, goTarget, flags...)
			table := open(t, path)
			cmd := exec.Command(path)
			cmd.Stdin = strings.NewReader("3\n")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var places []Place
			var want []event.Frame
			for line := range strings.Lines(string(out)) {
				f := strings.Split(strings.TrimSpace(line), "\t")
				if len(f) < 4 {
					continue
				}
				offset, err := strconv.ParseUint(f[0], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				number, err := strconv.Atoi(f[3])
				if err != nil {
					t.Fatal(err)
				}
				places = append(places, Place{Offset: offset})
				want = append(want, event.Frame{Function: f[1], File: f[2], Line: number})
			}
			if len(want) < 8 || !strings.HasPrefix(want[0].Function, "main.Probe") {
				t.Fatalf("the program says %v", want)
			}
			inlined := 0
			for i := 0; i < len(want); {
				got := table.Lookup(places[i])
				if len(got.Frames) == 0 || len(got.Frames) > len(want)-i {
					t.Fatalf("%+v is %v; the program says %v", places[i], got, want[i])
				}
				for j, f := range got.Frames {
					if f.Inlined != (j < len(got.Frames)-1) {
						t.Errorf("frame %d of %v: inlined is %v", j, got.Frames, f.Inlined)
					}
					if f.Inlined {
						inlined++
					}
					f.Inlined = false
					if f != want[i+j] {
						t.Errorf("%v; the program says %v", f, want[i+j])
					}
				}
				i += len(got.Frames)
			}
			if inlined < 2 && name != "not optimised" {
				t.Errorf("%d calls are inlined", inlined)
			}
		})
	}
}

// TestGoTables compares the debug information of every function with the runtime's table.
func TestGoTables(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "stacks")
			cmd := exec.Command("go", "build", "-o", path, "./"+goTarget)
			cmd.Dir = testkit.Root(t)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			compareTables(t, open(t, path))
		})
	}
}

func compareTables(t *testing.T, table *Table) {
	t.Helper()
	names := func(frames []event.Frame) (list []string) {
		for _, f := range frames {
			list = append(list, fmt.Sprint(f.Function, f.Line))
		}
		return list
	}
	compared, differ, inlined := 0, 0, 0
	for _, s := range table.symbols {
		if !strings.HasPrefix(s.Name, "main.") && !strings.HasPrefix(s.Name, "strconv.") && !strings.HasPrefix(s.Name, "bufio.") {
			continue
		}
		for pc := s.Address; pc < s.Address+s.Size; pc += 4 {
			program := withoutWrappers(table.program.lookup(pc))
			debugged, err := table.debugged(pc)
			if err != nil {
				t.Fatal(err)
			}
			if len(debugged) > 1 {
				inlined++
			}
			compared++
			if !slices.Equal(names(program), names(debugged)) {
				if differ++; differ < 5 {
					t.Logf("%#x: %v in the runtime's table, %v in the debug information", pc, program, debugged)
				}
			}
		}
	}
	// The two are made by different code, which does not agree about each instruction at the edges of what was inlined.
	if compared < 2000 || differ*20 > compared || inlined*20 < compared {
		t.Errorf("%d of %d addresses differ, %d are inlined", differ, compared, inlined)
	}
}

// TestC compares with addr2line, which is other people's.
func TestC(t *testing.T) {
	addr2line, err := exec.LookPath("addr2line")
	if err != nil {
		t.Skip("no addr2line")
	}
	for name, flags := range map[string][]string{
		"DWARF 5": {"-O2", "-g", "-fno-omit-frame-pointer"},
		"DWARF 4": {"-O1", "-gdwarf-4", "-fno-omit-frame-pointer", "-no-pie"},
	} {
		t.Run(name, func(t *testing.T) {
			path := testkit.BuildC(t, "cstacks", []string{cTarget}, flags...)
			table := open(t, path)
			inlined := 0
			for _, s := range table.symbols {
				if s.Name != "recurse" && s.Name != "probe_me" && s.Name != "main" {
					continue
				}
				for pc := s.Address; pc < s.Address+s.Size; pc++ {
					offset, err := table.file.FileOffset(pc)
					if err != nil {
						t.Fatal(err)
					}
					out, err := exec.Command(addr2line, "-f", "-i", "-e", path, "0x"+strconv.FormatUint(pc, 16)).Output()
					if err != nil {
						t.Fatal(err)
					}
					lines := strings.Split(strings.TrimSpace(string(out)), "\n")
					frames := table.Lookup(Place{Offset: offset}).Frames
					if len(lines) != 2*len(frames) {
						t.Fatalf("%#x: %v; addr2line says %q", pc, frames, lines)
					}
					for i, f := range frames {
						where, _, _ := strings.Cut(lines[2*i+1], " (")
						if f.Function != lines[2*i] || filepath.Base(f.File)+":"+strconv.Itoa(f.Line) != filepath.Base(where) {
							t.Errorf("%#x: frame %d is %v; addr2line says %q", pc, i, f, lines)
						}
					}
					inlined += len(frames) - 1
				}
			}
			if inlined == 0 {
				t.Error("nothing is inlined")
			}
		})
	}
}

// TestFramePointer sees which code keeps its frame where frame pointers lead.
func TestFramePointer(t *testing.T) {
	for _, c := range []struct {
		flag string
		want bool
	}{{"-fno-omit-frame-pointer", true}, {"-fomit-frame-pointer", false}} {
		t.Run("amd64 "+c.flag, func(t *testing.T) {
			path := testkit.BuildC(t, "cstacks", []string{cTarget}, "-O2", "-s", c.flag)
			named := testkit.BuildC(t, "cstacks", []string{cTarget}, "-O2", c.flag)
			call := func(code []byte) int { return bytes.IndexByte(code, 0xe8) + 5 }
			requireFramePointer(t, open(t, path), open(t, named).symbols, call, c.want)
		})
		t.Run("arm64 "+c.flag, func(t *testing.T) {
			compiler, err := exec.LookPath("aarch64-linux-gnu-gcc")
			if err != nil {
				t.Skip("no compiler for arm64")
			}
			path := filepath.Join(t.TempDir(), "cstacks")
			cmd := exec.Command(compiler, "-O2", "-o", path, c.flag, cTarget)
			cmd.Dir = testkit.Root(t)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			table := open(t, path)
			call := func(code []byte) int {
				at := 0
				for at+4 <= len(code) && code[at+3]>>2 != 0x94>>2 { // bl
					at += 4
				}
				return at + 4
			}
			requireFramePointer(t, table, table.symbols, call, c.want)
		})
	}
}

// requireFramePointer looks up the instruction behind the first call in recurse.
func requireFramePointer(t *testing.T, table *Table, symbols objfile.Symbols, call func(code []byte) int, want bool) {
	t.Helper()
	i := slices.IndexFunc(symbols, func(s objfile.Symbol) bool { return s.Name == "recurse" })
	if i < 0 {
		t.Fatal("no recurse")
	}
	s := symbols[i]
	code, err := table.file.Memory(s.Address, int(s.Size))
	if err != nil {
		t.Fatal(err)
	}
	offset, err := table.file.FileOffset(s.Address + uint64(call(code)))
	if err != nil {
		t.Fatal(err)
	}
	if l := table.Lookup(Place{Offset: offset, Return: true}); l.NoFramePointer == want {
		t.Errorf("%+v", l)
	}
	if l := table.Lookup(Place{Offset: offset}); l.NoFramePointer {
		t.Errorf("an instruction that nothing returns to: %+v", l)
	}
}

// TestCPlusPlus: functions have the names of the source, with debug information and without.
func TestCPlusPlus(t *testing.T) {
	for _, flag := range []string{"-g", "-g0"} {
		path := testkit.BuildC(t, "class", []string{"internal/symbol/testdata/class.cc"}, "-O2", flag, "-fno-exceptions")
		table := open(t, path)
		seen := make(map[string]bool)
		for _, s := range table.symbols {
			if !strings.Contains(s.Name, "shop") {
				continue
			}
			for pc := s.Address; pc < s.Address+s.Size; pc++ {
				offset, err := table.file.FileOffset(pc)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range table.Lookup(Place{Offset: offset}).Frames {
					seen[f.Function] = true
				}
			}
		}
		if !seen["shop::Cart::total"] || !seen["shop::checkout"] || seen["shop::twice"] != (flag == "-g") {
			t.Errorf("%s: %v", flag, seen)
		}
	}
}

// TestSymbolsAlone: without debug information a function has its name.
func TestSymbolsAlone(t *testing.T) {
	path := testkit.BuildC(t, "cstacks", []string{cTarget}, "-O2")
	table := open(t, path)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name != "recurse" {
			continue
		}
		offset, err := table.file.FileOffset(s.Value + s.Size - 1)
		if err != nil {
			t.Fatal(err)
		}
		if l := table.Lookup(Place{Offset: offset}); len(l.Frames) != 1 || l.Frames[0] != (event.Frame{Function: "recurse"}) {
			t.Errorf("%+v", l)
		}
	}
	if l := table.Lookup(Place{Offset: 1 << 40}); len(l.Frames) != 0 {
		t.Errorf("what is not in the file is %+v", l)
	}
}

// FuzzLookup asks for addresses of executables that were changed anywhere.
func FuzzLookup(f *testing.F) {
	for _, path := range []string{
		testkit.BuildC(f, "cstacks", []string{cTarget}, "-O2", "-g"),
		testkit.BuildGo(f, goTarget, "-ldflags=-s -w"),
	} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint64(0x1180), uint32(0), uint64(0))
		f.Add(b, uint64(0xa0000), uint32(len(b)/2), uint64(0xffffffffffffffff))
	}
	f.Fuzz(func(t *testing.T, b []byte, offset uint64, at uint32, word uint64) {
		b = slices.Clone(b)
		for i := uint32(0); i < 8 && uint64(at)+uint64(i) < uint64(len(b)); i++ {
			b[at+i] ^= byte(word >> (8 * i))
		}
		table, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for i := range uint64(8) {
			l := table.Lookup(Place{Offset: offset + 97*i, Return: i%2 == 1})
			if len(l.Frames) > maxTable {
				t.Errorf("%d frames at one address", len(l.Frames))
			}
			for _, f := range l.Frames {
				if len(f.Function) > 2*maxName || len(f.File) > 2*maxName {
					t.Errorf("a name of %d bytes", len(f.Function)+len(f.File))
				}
			}
		}
	})
}

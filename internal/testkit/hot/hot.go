// SPDX-License-Identifier: Apache-2.0

// Package hot runs test/targets/hot and says where the arguments of its functions are: what resolving would find, known
// here from the C source and the platform's calling convention, so that what comes after resolving is tested and measured
// by itself.
package hot

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// arguments are the DWARF numbers of the registers that the first six integer arguments are passed in.
var arguments = map[string][6]int{
	"amd64": {5, 4, 1, 2, 8, 9}, // rdi rsi rdx rcx r8 r9
	"arm64": {0, 1, 2, 3, 4, 5},
}

// A Process is one running instance of the program.
type Process struct {
	*testkit.Program
	// Exe is its executable, open.
	Exe *os.File
}

// Start builds the program, starts it and waits until it takes commands. It ends with the test.
func Start(t testing.TB) *Process {
	t.Helper()
	path := testkit.BuildC(t, "hot", []string{"test/targets/hot/hot.c"}, "-O2", "-g", "-pthread")
	p := &Process{Program: testkit.Start(t, path)}
	p.Expect("ready", 5*time.Second)
	var err error
	if p.Exe, err = os.Open(fmt.Sprintf("/proc/%d/exe", p.PID())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Exe.Close() })
	return p
}

// Do sends a command and returns its answer, which it waits for as long as a minute: a probed call can cost many
// microseconds.
func (p *Process) Do(t testing.TB, format string, args ...any) int64 {
	t.Helper()
	p.Send(fmt.Sprintf(format, args...))
	n, err := strconv.ParseInt(p.Expect("done", time.Minute), 10, 64)
	if err != nil || n < 0 {
		t.Fatalf("%s: %d, %v", fmt.Sprintf(format, args...), n, err)
	}
	return n
}

// Target is what resolving a function of the program gives, with these values.
func (p *Process) Target(t testing.TB, function string, values ...target.Value) *target.Target {
	t.Helper()
	info, err := p.Exe.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	site, size := p.entry(t, function)
	return &target.Target{
		Identity: target.Identity{
			PID: p.PID(), StartTicks: p.startTicks(t), Comm: "hot", Path: "hot", Device: stat.Dev, Inode: stat.Ino,
			Size: info.Size(), MtimeNs: stat.Mtim.Nano(), Language: "c", Arch: runtime.GOARCH,
		},
		Function: target.Function{Name: function, Address: site.Address, Size: size},
		Sites:    []target.Site{site},
		Values:   values,
	}
}

// Modules are what the program has mapped as code, as resolving gives them where callers are asked for.
func (p *Process) Modules(t testing.TB) *target.Stack {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := procfs.ParseMaps(maps)
	if err != nil {
		t.Fatal(err)
	}
	s := new(target.Stack)
	for _, m := range list {
		if m.Executable {
			own := strings.HasSuffix(m.Path, "/hot")
			s.Modules = append(s.Modules, target.Module{Name: filepath.Base(m.Path), Start: m.Start, End: m.End, Offset: m.Offset, Own: own})
		}
	}
	return s
}

// entry finds a function's first instruction in the file and in the process.
func (p *Process) entry(t testing.TB, function string) (target.Site, uint64) {
	t.Helper()
	f, err := elf.NewFile(p.Exe)
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var base uint64
	for _, m := range testkit.Mappings(t, p.PID()) {
		if strings.HasSuffix(m.Path, "/hot") {
			base = m.Start
			break
		}
	}
	for _, s := range symbols {
		if s.Name != function {
			continue
		}
		for _, segment := range f.Progs {
			if segment.Type != elf.PT_LOAD || s.Value < segment.Vaddr || s.Value >= segment.Vaddr+segment.Filesz {
				continue
			}
			site := target.Site{
				Address: s.Value, FileOffset: s.Value - segment.Vaddr + segment.Off, RuntimeAddress: base + s.Value,
				Where: "entry", Bytes: make([]byte, 1),
			}
			if _, err := p.Exe.ReadAt(site.Bytes, int64(site.FileOffset)); err != nil {
				t.Fatal(err)
			}
			return site, s.Size
		}
	}
	t.Fatalf("the program has no function %s", function)
	return target.Site{}, 0
}

func (p *Process) startTicks(t testing.TB) uint64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(data, []byte(") ")) // the name of this program has no parenthesis
	ticks, err := strconv.ParseUint(strings.Fields(string(rest))[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return ticks
}

// Argument is where the i-th argument of a function is at its entry, or what lies at the offsets behind it.
func Argument(i int, offsets ...int64) target.Location {
	return target.Location{Register: arguments[runtime.GOARCH][i], Offsets: offsets}
}

// Scalar describes a number of so many bytes.
func Scalar(path string, kind target.Kind, size int, at target.Location) target.Value {
	return value(path, kind, size, at)
}

// String describes a pointer and a length.
func String(path string, data, length target.Location) target.Value {
	v := value(path, target.KindString, 0, data)
	v.Length = length
	return v
}

// CString describes a pointer to bytes that end with a zero.
func CString(path string, at target.Location) target.Value {
	return value(path, target.KindCString, 0, at)
}

func value(path string, kind target.Kind, size int, at target.Location) target.Value {
	return target.Value{Path: path, Names: strings.Split(path, "."), TypeName: string(kind), Kind: kind, Size: size, Data: at}
}

// Pair are the arguments of hot_pair: value, an integer, and text, a pointer and a length.
func Pair() []target.Value {
	return []target.Value{
		Scalar("value", target.KindInt, 8, Argument(0)),
		String("text", Argument(1), Argument(2)),
	}
}

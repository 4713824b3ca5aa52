// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestLengths holds the length of every instruction of big programs, full of AVX and AVX-512, against another disassembler.
func TestLengths(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("what is disassembled here are this machine's own programs")
	}
	const vectors = "agent/resolve/testdata/vectors.c"
	programs := map[string]string{
		"AVX":                 build(t, "gcc", vectors, "-O3", "-mavx", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-fPIC", "-shared"),
		"AVX2":                build(t, "gcc", vectors, "-O3", "-march=haswell", "-fPIC", "-shared"),
		"AVX-512":             build(t, "gcc", vectors, "-O3", "-march=icelake-server", "-mprefer-vector-width=512", "-fPIC", "-shared"),
		"AVX-512, half width": build(t, "gcc", vectors, "-O3", "-march=sapphirerapids", "-mprefer-vector-width=256", "-fPIC", "-shared"),
		"C's library, static": testkit.BuildC(t, "cfuncs", []string{"test/targets/cfuncs/main.c"}, "-O2", "-static", "-lm"),
		"Go":                  testkit.BuildGo(t, "test/targets/gofuncs"),
	}
	if os.Getenv("KEYHOLE_LONG") != "" {
		for name, path := range map[string]string{
			"Go's cryptography": testkit.BuildGo(t, "cmd/keyhole"), "C's library": "/lib/x86_64-linux-gnu/libc.so.6",
			"mathematics": "/lib/x86_64-linux-gnu/libm.so.6", "C++'s library": "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
			"a compiler": "/usr/lib/llvm-19/lib/libclang-cpp.so.19.1", "a code generator": "/usr/lib/x86_64-linux-gnu/libLLVM-19.so.1",
		} {
			if path, err := filepath.EvalSymlinks(path); !errors.Is(err, fs.ErrNotExist) {
				programs[name] = path
			}
		}
	}
	for name, path := range programs {
		t.Run(name, func(t *testing.T) { requireLengths(t, path) })
	}
}

func requireLengths(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command("objdump", "-d", "-w", "-z", "--insn-width=16", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all, vector, refused, wrong int
	mnemonics := make(map[string]int) // of what is refused
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		at, rest, ok := strings.Cut(strings.TrimLeft(lines.Text(), " "), ":\t")
		if !ok {
			continue
		}
		pc, err := strconv.ParseUint(at, 16, 64)
		if err != nil {
			continue
		}
		raw, text, _ := strings.Cut(rest, "\t")
		b, err := hex.DecodeString(strings.ReplaceAll(raw, " ", ""))
		if err != nil || len(b) == 0 || strings.Contains(text, "(bad)") || isPrefixAlone(text) {
			continue
		}
		all++
		// What follows must not change what is read.
		for _, behind := range []byte{0x00, 0xff} {
			long := append(b[:len(b):len(b)], behind, behind, behind, behind, behind, behind, behind, behind, behind, behind, behind, behind, behind, behind, behind)
			i, ok := instructionX86(long, pc)
			if !ok {
				if behind == 0 {
					refused++
					mnemonics[strings.Join(strings.Fields(text)[:1], " ")]++
				}
				continue
			}
			if e, _ := encodeX86(long); e.vector && behind == 0 {
				vector++
			}
			if i.length != len(b) {
				if wrong++; wrong <= 20 {
					t.Errorf("%x: % x %q has %d bytes, not %d", pc, b, text, len(b), i.length)
				}
			}
			if leaves := flowOf(text); leaves != (i.flow != flowStraight) {
				if wrong++; wrong <= 20 {
					t.Errorf("%x: % x %q: flow %d", pc, b, text, i.flow)
				}
			}
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions, %d of them VEX or EVEX; %d refused: %v; %d wrong", all, vector, refused, mnemonics, wrong)
	if all < 1000 || refused > all/1000 {
		t.Errorf("%d of %d instructions are refused: %v", refused, all, mnemonics)
	}
}

// flowOf says whether objdump's text is that of an instruction that may go elsewhere.
func flowOf(text string) bool {
	for _, word := range strings.Fields(text) {
		if strings.HasPrefix(word, "rex") {
			continue
		}
		switch word {
		case "bnd", "notrack", "data16", "cs", "ds", "es", "ss", "repz", "repnz", "addr32":
			continue
		}
		for _, beginning := range []string{"j", "call", "ret", "loop", "lret", "iret", "lcall", "ljmp", "xbegin"} {
			if strings.HasPrefix(word, beginning) {
				return true
			}
		}
		return false
	}
	return false
}

// isPrefixAlone recognises what objdump shows of bytes that are none of an instruction.
func isPrefixAlone(text string) bool {
	for _, word := range strings.Fields(text) {
		switch {
		case strings.HasPrefix(word, "rex"):
		case word == "data16", word == "lock", word == "repz", word == "repnz", word == "addr32", word == "bnd", word == "notrack",
			word == "cs", word == "ds", word == "es", word == "fs", word == "gs", word == "ss", word == "xacquire", word == "xrelease":
		default:
			return false
		}
	}
	return true
}

// FuzzLength: a length lies within what there is, it does not depend on what is behind it, and nothing is straight that x86asm knows for
// a branch.
func FuzzLength(f *testing.F) {
	for _, s := range []string{"c3", "c5f877", "c4e37d394401ff", "62f17c4828c1", "f30f1efa", "66ea", "48b80102030405060708", "67a101020304", "660f3a0fc108", "f3c3"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := encodeX86(b)
		if !ok {
			return
		}
		if e.length < 1 || e.length > min(len(b), maxLengthX86) {
			t.Fatalf("% x: %d bytes", b, e.length)
		}
		if alone, ok := encodeX86(b[:e.length]); !ok || alone != e {
			t.Errorf("% x: %+v, alone %+v", b, e, alone)
		}
		for n := range e.length {
			if shorter, ok := encodeX86(b[:n]); ok {
				t.Errorf("% x: %+v, of %d bytes already %+v", b, e, n, shorter)
			}
		}
		if i, err := x86asm.Decode(b, 64); err == nil && e.straight && !e.vector && i.Op != 0 && i.Len == e.length {
			if _, direct := branchTarget(i, 0); direct {
				t.Errorf("% x is a branch: %v", b, i)
			}
		}
	})
}

// TestAllDecoded: no function of a program is refused because an instruction of it is not understood, those of AVX in Go's runtime and
// cryptography and in C's library among them.
func TestAllDecoded(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("what is read here are this machine's own programs")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"Go": self, "C": testkit.BuildC(t, "cfuncs", []string{"test/targets/cfuncs/main.c"}, "-O2", "-static", "-lm"),
	} {
		p, err := open(inputOfFile(t, path))
		if err != nil {
			t.Fatal(err)
		}
		var last uint64
		var all, returning, unread int
		for _, s := range p.symbols {
			if s.Address == last || s.Size == 0 {
				continue
			}
			last = s.Address
			c, err := p.code(&function{name: s.Name, address: s.Address})
			if err != nil {
				continue
			}
			all++
			switch _, err := c.returnSites(); {
			case err == nil:
				returning++
			case strings.Contains(err.Error(), "cannot be decoded"):
				unread++
				t.Logf("%s: %v", s.Name, err)
			}
		}
		t.Logf("%s: %d functions, of %d all returns are known, %d have an instruction that is not understood", name, all, returning, unread)
		if all < 1000 || unread > all/1000 {
			t.Errorf("%s: of %d functions %d have an instruction that is not understood", name, all, unread)
		}
	}
}

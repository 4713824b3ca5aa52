// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	goTarget = "test/targets/gofuncs"
	cTarget  = "test/targets/cfuncs/main.c"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openBytes(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func TestOpenGo(t *testing.T) {
	path := testkit.BuildGo(t, goTarget)
	f, err := openBytes(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if f.PIE() {
		t.Error("it is not position-independent")
	}
	id, err := exec.Command("go", "tool", "buildid", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	// A linker may have been told to write a GNU build ID too, which then is the one.
	if got := f.BuildID(); got != strings.TrimSpace(string(id)) && len(got) != 40 {
		t.Errorf("build ID %q; go tool buildid says %q", got, id)
	}
	symbols, err := f.Functions()
	if err != nil {
		t.Fatal(err)
	}
	table, err := f.GoFunctions()
	if err != nil {
		t.Fatal(err)
	}
	// Two tables that the linker writes by different code.
	for _, name := range []string{"main.main", "main.(*User).Greet", "runtime.mallocgc"} {
		i := slices.IndexFunc(symbols, func(s Symbol) bool { return s.Name == name })
		j := slices.IndexFunc(table, func(s Symbol) bool { return s.Name == name })
		if i < 0 || j < 0 || symbols[i].Address != table[j].Address {
			t.Fatalf("%s: %d in the symbol table, %d in the runtime's", name, i, j)
		}
		s := symbols[i]
		if !slices.Contains(symbols.At(s.Address), s) || symbols.End(s.Address) != s.Address+s.Size {
			t.Errorf("%+v is not found by its address", s)
		}
	}
	if all := symbols.At(symbols[0].Address - 1); len(all) > 0 {
		t.Errorf("%+v begin where nothing does", all)
	}
}

func TestOpenC(t *testing.T) {
	path := testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g", "-gz", "-Wl,--build-id=0x0123456789abcdef")
	f, err := openBytes(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if !f.PIE() {
		t.Error("it is position-independent")
	}
	if got := f.BuildID(); got != "0123456789abcdef" {
		t.Errorf("build ID %q", got)
	}
	symbols, err := f.Functions()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s Symbol) bool { return s.Name == "integers" })
	if i < 0 {
		t.Fatal("no symbol integers")
	}
	at := symbols[i].Address
	offset, err := f.FileOffset(at)
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Memory(at, int(symbols[i].Size))
	if err != nil || !bytes.Equal(text, read(t, path)[offset:offset+symbols[i].Size]) {
		t.Errorf("memory at %#x is not what the file has at %#x: %v", at, offset, err)
	}
	info, _, err := f.Section(".debug_info")
	if err != nil || len(info) < 100 || info[4] > 5 && info[4] != 0 {
		t.Errorf("%d bytes of decompressed .debug_info, % x..., %v", len(info), info[:min(len(info), 8)], err)
	}
	if b, _, err := f.Section(".nothing"); b != nil || err != nil {
		t.Errorf("a section that is not there: %d bytes, %v", len(b), err)
	}
	if _, err := f.FileOffset(0); err == nil {
		t.Error("address 0 of the ELF header is executable")
	}
	imports, err := f.Imports()
	if err != nil || !slices.Contains(imports, "__libc_start_main") || slices.Contains(imports, "integers") {
		t.Errorf("imports %q, %v", imports, err)
	}
	holds := false
	if err := f.EachCode(func(address uint64, text []byte) bool {
		holds = holds || at >= address && at < address+uint64(len(text))
		return true
	}); err != nil || !holds {
		t.Errorf("no code at %#x: %v", at, err)
	}
	data := f.elf.Section(".data")
	if _, err := f.FileOffset(data.Addr); err == nil {
		t.Error("data is executable")
	}
	if _, err := f.Memory(1<<62, 1); err == nil {
		t.Error("memory beyond all segments was read")
	}
}

// TestCutShort cuts an executable at many places: each is one clear error, or nothing is missing.
func TestCutShort(t *testing.T) {
	whole := read(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g"))
	for n := 0; n < len(whole); n += 1 + len(whole)/400 {
		f, err := openBytes(whole[:n])
		if f != nil || err == nil {
			t.Fatalf("the first %d of %d bytes were opened", n, len(whole))
		}
		if !errors.Is(err, ErrCutShort) && (n >= 4 || !errors.Is(err, ErrNotELF)) {
			t.Errorf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	// The headers say more than the reader holds.
	if _, err := Open(bytes.NewReader(whole[:len(whole)/2]), int64(len(whole))); err == nil {
		t.Error("a file that ends before its size was opened")
	}
}

// TestRefused changes one thing in the headers of an executable.
func TestRefused(t *testing.T) {
	whole := read(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g", "-gz"))
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func(b []byte)
		want   error
	}{
		"not ELF":               {func(b []byte) { b[0] = '#' }, ErrNotELF},
		"32 bits":               {func(b []byte) { b[elf.EI_CLASS] = byte(elf.ELFCLASS32) }, ErrUnsupported},
		"big-endian":            {func(b []byte) { b[elf.EI_DATA] = byte(elf.ELFDATA2MSB) }, ErrUnsupported},
		"another machine":       {func(b []byte) { le.PutUint16(b[18:], uint16(elf.EM_RISCV)) }, ErrUnsupported},
		"an object file":        {func(b []byte) { le.PutUint16(b[16:], uint16(elf.ET_REL)) }, ErrUnsupported},
		"too many sections":     {func(b []byte) { le.PutUint16(b[60:], 60000) }, ErrTooLarge},
		"too many segments":     {func(b []byte) { le.PutUint16(b[56:], 60000) }, ErrTooLarge},
		"sections numbered far": {func(b []byte) { le.PutUint16(b[60:], 0) }, ErrUnsupported},
		"sections elsewhere":    {func(b []byte) { le.PutUint64(b[40:], 1<<63) }, ErrCutShort},
		"segments elsewhere":    {func(b []byte) { le.PutUint64(b[32:], ^uint64(0)-8) }, ErrCutShort},
		"names elsewhere":       {func(b []byte) { le.PutUint16(b[62:], 0xfff0) }, ErrUnsupported},
		"compressed names": {func(b []byte) {
			header := le.Uint64(b[40:]) + 64*uint64(le.Uint16(b[62:]))
			le.PutUint64(b[header+8:], uint64(elf.SHF_COMPRESSED))
		}, ErrTooLarge},
	} {
		b := bytes.Clone(whole)
		c.change(b)
		if _, err := openBytes(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestBomb has sections that say to be larger, decompressed, than all that may be read.
func TestBomb(t *testing.T) {
	whole := read(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g", "-gz"))
	f, err := openBytes(whole)
	if err != nil {
		t.Fatal(err)
	}
	s := f.elf.Section(".debug_info")
	for _, size := range []uint64{1 << 40, maxSectionBytes + 1, ^uint64(0)} {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint64(b[s.Offset+8:], size) // Elf64_Chdr.ch_size
		f, err := openBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Section(".debug_info"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a section of %d bytes: %v", size, err)
		}
	}
	// One that is read again and again uses the budget up.
	for range maxTotalBytes/int(s.Size) + 1 {
		if _, _, err = f.Section(".debug_info"); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("the budget of all sections has no end: %v", err)
	}
}

func TestBarrier(t *testing.T) {
	err := Barrier("read all", func() error {
		var b []byte
		_ = b[len(b):][3]
		return nil
	})
	if err == nil || !strings.HasPrefix(err.Error(), "read all: malformed: ") {
		t.Errorf("a panic became %v", err)
	}
	want := errors.New("an ordinary error")
	if err := Barrier("read all", func() error { return want }); !errors.Is(err, want) {
		t.Errorf("%v became %v", want, err)
	}
}

// FuzzOpen asks everything of files that were changed anywhere.
func FuzzOpen(f *testing.F) {
	if path, err := exec.LookPath("gcc"); err == nil && path != "" {
		f.Add(read(f, testkit.BuildC(f, "cfuncs", []string{cTarget}, "-O2", "-g", "-gz", "-Wl,-s")))
		f.Add(read(f, testkit.BuildC(f, "sites", []string{"agent/resolve/testdata/sites.S"}, "-nostdlib", "-static", "-no-pie")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := openBytes(b)
		if err != nil {
			return
		}
		if id := file.BuildID(); len(id) > 2*maxNoteBytes {
			t.Errorf("a build ID of %d bytes", len(id))
		}
		symbols, err := file.Functions()
		if err == nil && !slices.IsSortedFunc(symbols, func(a, b Symbol) int { return int(min(max(int64(a.Address>>1)-int64(b.Address>>1), -1), 1)) }) {
			t.Error("symbols are not sorted")
		}
		for _, s := range symbols[:min(len(symbols), 100)] {
			if offset, err := file.FileOffset(s.Address); err == nil && offset >= uint64(len(b)) {
				t.Errorf("%s at %#x has its code at %#x of %d bytes", s.Name, s.Address, offset, len(b))
			}
			if text, err := file.Memory(s.Address, 16); err == nil && len(text) > 16 {
				t.Errorf("%d bytes of 16", len(text))
			}
		}
		_, _ = file.GoFunctions()
		if imports, err := file.Imports(); err == nil && len(imports) > len(b) {
			t.Errorf("%d imports in %d bytes", len(imports), len(b))
		}
		_ = file.EachCode(func(_ uint64, text []byte) bool { return len(text) <= len(b) })
		for _, s := range file.elf.Sections[:min(len(file.elf.Sections), 64)] {
			if b, _, err := file.Section(s.Name); err == nil && uint64(len(b)) > maxSectionBytes {
				t.Errorf("section %s has %d bytes", s.Name, len(b))
			}
		}
	})
}

// FuzzNotes walks note segments.
func FuzzNotes(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd\x00\x00"), uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, align uint64) {
		total := 0
		eachNote(b, align, func(name string, _ uint32, desc []byte) { total += 12 + len(name) + len(desc) })
		if total > len(b) {
			t.Errorf("notes of %d bytes in %d", total, len(b))
		}
	})
}

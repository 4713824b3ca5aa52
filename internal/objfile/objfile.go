// SPDX-License-Identifier: Apache-2.0

// Package objfile reads ELF executables that a hostile program may have written. Everything that it hands out is
// bounded: the header is checked against the file's size before anything is allocated by its numbers, sections share one budget of
// decompressed bytes, and Barrier turns a panic of a parser into an error.
package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Bounds. Real executables stay far below; a file beyond one is refused, not cut.
const (
	maxSections      = 4096
	maxSegments      = 256
	maxStringTable   = 1 << 20   // names of sections
	maxSectionBytes  = 128 << 20 // one section, decompressed
	maxTotalBytes    = 176 << 20 // all sections that were read; the inspector lives in 256 MiB
	maxNoteBytes     = 64 << 10
	maxSymbols       = 4 << 20
	sectionHeaderLen = 64
	programHeaderLen = 56
	fileHeaderLen    = 64
)

var (
	// ErrNotELF says that the file is no ELF file at all.
	ErrNotELF = errors.New("not an ELF file")
	// ErrCutShort says that the file ends before something that its own headers describe.
	ErrCutShort = errors.New("the ELF file is cut short")
	// ErrUnsupported says that the file is an ELF file of a kind that Keyhole does not read.
	ErrUnsupported = errors.New("unsupported ELF file")
	// ErrTooLarge says that a part of the file is beyond the bounds of this package.
	ErrTooLarge = errors.New("too large")
)

// A File is an opened executable. Its methods may be called from several goroutines.
type File struct {
	elf  *elf.File
	r    io.ReaderAt
	size int64

	mu     sync.Mutex
	budget int64 // bytes of sections that may still be read
}

// Open checks the headers of an executable of size bytes. The errors are ErrNotELF, ErrCutShort, ErrUnsupported and
// ErrTooLarge, wrapped with what was found; any other is a failed read.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if err := checkHeaders(r, size); err != nil {
		return nil, err
	}
	f := &File{r: r, size: size, budget: maxTotalBytes}
	err := Barrier("read ELF headers", func() error {
		var err error
		f.elf, err = elf.NewFile(io.NewSectionReader(r, 0, size))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read ELF headers: %w", err)
	}
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && !within(p.Off, p.Filesz, size) {
			return nil, fmt.Errorf("%w: a segment ends at %d, the file at %d", ErrCutShort, p.Off+p.Filesz, size)
		}
	}
	return f, nil
}

// checkHeaders proves that what debug/elf is going to allocate is bounded and lies in the file.
func checkHeaders(r io.ReaderAt, size int64) error {
	var h [fileHeaderLen]byte
	n, err := r.ReadAt(h[:], 0)
	if n < 4 || !bytes.Equal(h[:4], []byte(elf.ELFMAG)) {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read ELF header: %w", err)
		}
		return ErrNotELF
	}
	if n < len(h) {
		return fmt.Errorf("%w: it ends inside its header", ErrCutShort)
	}
	le := binary.LittleEndian
	if elf.Class(h[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(h[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return fmt.Errorf("%w: %v, %v; only 64-bit little-endian is", ErrUnsupported, elf.Class(h[elf.EI_CLASS]), elf.Data(h[elf.EI_DATA]))
	}
	if m := elf.Machine(le.Uint16(h[18:])); m != elf.EM_X86_64 && m != elf.EM_AARCH64 {
		return fmt.Errorf("%w: machine %v; only x86-64 and arm64 are", ErrUnsupported, m)
	}
	if t := elf.Type(le.Uint16(h[16:])); t != elf.ET_EXEC && t != elf.ET_DYN {
		return fmt.Errorf("%w: type %v is no executable", ErrUnsupported, t)
	}
	phoff, shoff := le.Uint64(h[32:]), le.Uint64(h[40:])
	phentsize, phnum := le.Uint16(h[54:]), le.Uint16(h[56:])
	shentsize, shnum, shstrndx := le.Uint16(h[58:]), le.Uint16(h[60:]), le.Uint16(h[62:])
	if phnum > maxSegments || shnum > maxSections {
		return fmt.Errorf("%w: %d segments and %d sections", ErrTooLarge, phnum, shnum)
	}
	if phnum > 0 && phentsize != programHeaderLen || shnum > 0 && shentsize != sectionHeaderLen {
		return fmt.Errorf("%w: headers of %d and %d bytes", ErrUnsupported, phentsize, shentsize)
	}
	if !within(phoff, uint64(phnum)*programHeaderLen, size) {
		return fmt.Errorf("%w: program headers at %d, the file ends at %d", ErrCutShort, phoff, size)
	}
	if shnum == 0 {
		if shoff != 0 {
			return fmt.Errorf("%w: extended section numbers", ErrUnsupported)
		}
		return nil
	}
	if !within(shoff, uint64(shnum)*sectionHeaderLen, size) {
		return fmt.Errorf("%w: section headers at %d, the file ends at %d", ErrCutShort, shoff, size)
	}
	if shstrndx >= shnum {
		return fmt.Errorf("%w: no names of sections", ErrUnsupported)
	}
	var s [sectionHeaderLen]byte
	if _, err := r.ReadAt(s[:], int64(shoff)+int64(shstrndx)*sectionHeaderLen); err != nil {
		return fmt.Errorf("read section header: %w", err)
	}
	// debug/elf reads this one section without being asked to.
	if elf.SectionFlag(le.Uint64(s[8:]))&elf.SHF_COMPRESSED != 0 || le.Uint64(s[32:]) > maxStringTable {
		return fmt.Errorf("%w: names of sections", ErrTooLarge)
	}
	return nil
}

func within(offset, length uint64, size int64) bool {
	end := offset + length
	return end >= offset && end <= uint64(size)
}

// Machine is the architecture that the executable is for.
func (f *File) Machine() elf.Machine { return f.elf.Machine }

// PIE says whether the kernel chooses the address at which the executable is loaded.
func (f *File) PIE() bool { return f.elf.Type == elf.ET_DYN }

// HasSection says whether there is a section of that name with bytes in the file.
func (f *File) HasSection(name string) bool {
	s := f.elf.Section(name)
	return s != nil && s.Type != elf.SHT_NOBITS
}

// Section returns a section's bytes, decompressed, and its address; nil if there is none with bytes in the file.
func (f *File) Section(name string) ([]byte, uint64, error) {
	s := f.elf.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, 0, nil
	}
	b, err := f.data(s)
	return b, s.Addr, err
}

// CodeEnd is where the section of code that an address is in ends; 0 if the file does not say.
func (f *File) CodeEnd(addr uint64) uint64 {
	for _, s := range f.elf.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Addr <= addr && addr-s.Addr < s.Size {
			return s.Addr + s.Size
		}
	}
	return 0
}

// EachCode calls visit with the bytes of each section of code and their address, until it returns false.
func (f *File) EachCode(visit func(address uint64, text []byte) bool) error {
	for _, s := range f.elf.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || s.Type == elf.SHT_NOBITS {
			continue
		}
		text, err := f.data(s)
		if err != nil {
			return err
		}
		if !visit(s.Addr, text) {
			return nil
		}
	}
	return nil
}

func (f *File) data(s *elf.Section) ([]byte, error) {
	if !within(s.Offset, s.FileSize, f.size) {
		return nil, fmt.Errorf("%w: section %s ends at %d, the file at %d", ErrCutShort, s.Name, s.Offset+s.FileSize, f.size)
	}
	if err := f.reserve(s.Size); err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	b := make([]byte, s.Size)
	err := Barrier("read section "+s.Name, func() error {
		_, err := io.ReadFull(s.Open(), b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read section %s: %w", s.Name, err)
	}
	return b, nil
}

// reserve takes n bytes, as a header declares them, off the budget before anything is allocated or decompressed.
func (f *File) reserve(n uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > maxSectionBytes || int64(n) > f.budget {
		return fmt.Errorf("%w: %d MiB, of at most %d in all", ErrTooLarge, n>>20, maxTotalBytes>>20)
	}
	f.budget -= int64(n)
	return nil
}

// segment finds the PT_LOAD whose bytes in the file hold [addr, addr+n).
func (f *File) segment(addr uint64, n int) *elf.Prog {
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz && uint64(n) <= p.Filesz-(addr-p.Vaddr) {
			return p
		}
	}
	return nil
}

// FileOffset says where in the file the instruction at an address is. It is an error if the address is in no segment
// that is executable and not writable: the kernel puts no probe elsewhere.
func (f *File) FileOffset(addr uint64) (uint64, error) {
	p := f.segment(addr, 1)
	switch {
	case p == nil:
		return 0, fmt.Errorf("address %#x is in no loaded segment", addr)
	case p.Flags&elf.PF_X == 0:
		return 0, fmt.Errorf("address %#x is in a segment that is not executable", addr)
	case p.Flags&elf.PF_W != 0:
		return 0, fmt.Errorf("address %#x is in a writable segment", addr)
	}
	return addr - p.Vaddr + p.Off, nil
}

// Address says where the byte of the file at an offset is when it runs; ok is false if it is in no executable segment.
func (f *File) Address(offset uint64) (addr uint64, ok bool) {
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && offset >= p.Off && offset-p.Off < p.Filesz {
			return offset - p.Off + p.Vaddr, true
		}
	}
	return 0, false
}

// Memory reads bytes at an address as the file has them. It returns fewer than n where the segment ends first.
func (f *File) Memory(addr uint64, n int) ([]byte, error) {
	p := f.segment(addr, 1)
	if p == nil {
		return nil, fmt.Errorf("address %#x is in no loaded segment", addr)
	}
	n = int(min(uint64(n), p.Filesz-(addr-p.Vaddr)))
	b := make([]byte, n)
	if _, err := f.r.ReadAt(b, int64(addr-p.Vaddr+p.Off)); err != nil {
		return nil, fmt.Errorf("read %d bytes at address %#x: %w", n, addr, err)
	}
	return b, nil
}

// Barrier runs a parser of hostile bytes and turns its panic into an error. It cannot stop what ends a Go process
// (memory, stack depth): bounds do that, and around them the inspector's limits.
func Barrier(what string, parse func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: malformed: %v", what, p)
		}
	}()
	return parse()
}

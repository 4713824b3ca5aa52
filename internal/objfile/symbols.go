// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"cmp"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A Symbol is a function of a symbol table.
type Symbol struct {
	Name    string
	Address uint64
	Size    uint64 // 0: the table does not say
}

// Symbols are functions, sorted by address.
type Symbols []Symbol

const symbolLen = 24

// Functions reads the defined functions of .symtab and .dynsym. A file without both has none: that is no error.
func (f *File) Functions() (Symbols, error) {
	var all Symbols
	for _, kind := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		table, names, err := f.symbols(kind)
		if err != nil {
			return nil, err
		}
		all = appendFunctions(all, table, names)
	}
	all.Sort()
	// The dynamic table repeats what the static one has.
	return slices.CompactFunc(all, func(a, b Symbol) bool { return a.Address == b.Address && a.Name == b.Name }), nil
}

// Imports are the names of what the dynamic linker finds for the executable elsewhere: functions and variables. There are none in one that
// is linked statically, or whose sections are not described.
func (f *File) Imports() ([]string, error) {
	table, names, err := f.symbols(elf.SHT_DYNSYM)
	if err != nil {
		return nil, err
	}
	var all []string
	for ; len(table) >= symbolLen; table = table[symbolLen:] {
		if elf.SectionIndex(binary.LittleEndian.Uint16(table[6:])) != elf.SHN_UNDEF {
			continue
		}
		if name := nameAt(names, binary.LittleEndian.Uint32(table)); name != "" {
			all = append(all, name)
		}
	}
	return all, nil
}

// symbols reads a table of Elf64_Sym, and the names that it refers to. A file without one has an empty one.
func (f *File) symbols(kind elf.SectionType) (table []byte, names string, err error) {
	s := f.elf.SectionByType(kind)
	if s == nil {
		return nil, "", nil
	}
	if s.Size/symbolLen > maxSymbols {
		return nil, "", fmt.Errorf("read symbols: %w: %d", ErrTooLarge, s.Size/symbolLen)
	}
	if int(s.Link) >= len(f.elf.Sections) || f.elf.Sections[s.Link].Type != elf.SHT_STRTAB {
		return nil, "", fmt.Errorf("read symbols: %w: no names", ErrUnsupported)
	}
	if table, err = f.data(s); err != nil {
		return nil, "", fmt.Errorf("read symbols: %w", err)
	}
	text, err := f.data(f.elf.Sections[s.Link])
	if err != nil {
		return nil, "", fmt.Errorf("read names of symbols: %w", err)
	}
	return table, string(text), nil
}

// Sort puts symbols in the order that the methods of Symbols count on: by address, those with a size first.
func (s Symbols) Sort() {
	slices.SortStableFunc(s, func(a, b Symbol) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(b.Size, a.Size), cmp.Compare(a.Name, b.Name))
	})
}

// GoFunctions reads the table that Go's runtime keeps of its functions; nil if there is none.
func (f *File) GoFunctions() (Symbols, error) {
	table, _, err := f.Section(".gopclntab")
	if err == nil && table == nil {
		table, _, err = f.Section(".data.rel.ro.gopclntab")
	}
	text := f.elf.Section(".text")
	if err != nil || table == nil || text == nil {
		return nil, err
	}
	var all Symbols
	err = Barrier("read .gopclntab", func() error {
		functions, err := gosym.NewTable(nil, gosym.NewLineTable(table, text.Addr))
		if err != nil {
			return err
		}
		for _, fn := range functions.Funcs {
			if len(all) == maxSymbols {
				return fmt.Errorf("%w: more than %d functions", ErrTooLarge, maxSymbols)
			}
			if fn.End > fn.Entry {
				all = append(all, Symbol{Name: fn.Name, Address: fn.Entry, Size: fn.End - fn.Entry})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read .gopclntab: %w", err)
	}
	all.Sort()
	return all, nil
}

// appendFunctions reads a table of Elf64_Sym: st_name u32, st_info u8, st_other u8, st_shndx u16, st_value u64, st_size u64.
func appendFunctions(all Symbols, table []byte, names string) Symbols {
	le := binary.LittleEndian
	for ; len(table) >= symbolLen; table = table[symbolLen:] {
		if elf.ST_TYPE(table[4]) != elf.STT_FUNC || elf.SectionIndex(le.Uint16(table[6:])) == elf.SHN_UNDEF {
			continue
		}
		name := nameAt(names, le.Uint32(table))
		if name == "" {
			continue
		}
		all = append(all, Symbol{Name: name, Address: le.Uint64(table[8:]), Size: le.Uint64(table[16:])})
	}
	return all
}

// nameAt is a name of a table of them; empty if there is none.
func nameAt(names string, at uint32) string {
	if uint64(at) >= uint64(len(names)) {
		return ""
	}
	name, _, ok := strings.Cut(names[at:], "\x00")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "@") // a version of the dynamic table
	return name
}

// At returns the symbols that begin at an address.
func (s Symbols) At(addr uint64) Symbols {
	i := sort.Search(len(s), func(i int) bool { return s[i].Address >= addr })
	j := i
	for j < len(s) && s[j].Address == addr {
		j++
	}
	return s[i:j]
}

// End is where the function that begins at addr ends: by its symbol's size, else where the next symbol begins, else 0.
func (s Symbols) End(addr uint64) uint64 {
	for _, sym := range s.At(addr) {
		if sym.Size > 0 {
			return addr + sym.Size
		}
	}
	i := sort.Search(len(s), func(i int) bool { return s[i].Address > addr })
	if i < len(s) {
		return s[i].Address
	}
	return 0
}

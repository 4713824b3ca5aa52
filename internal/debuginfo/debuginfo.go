// SPDX-License-Identifier: Apache-2.0

// Package debuginfo answers questions of a probe from DWARF: which function begins at an address, what its parameters are
// called, of which type they are, and where each is at a given instruction. It reads only what a question needs (one
// compile unit, one chain of types), since the debug information of a program can be larger than the program, and it trusts
// nothing: each walk is bounded, and callers put objfile.Barrier around the whole.
package debuginfo

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"sync"

	delve "github.com/go-delve/delve/pkg/dwarf"
	"github.com/go-delve/delve/pkg/dwarf/godwarf"
	"github.com/go-delve/delve/pkg/dwarf/loclist"

	"github.com/keyhole-dev/keyhole/internal/objfile"
)

// Bounds of one question.
const (
	maxEntries    = 40 << 20 // entries visited by one walk over everything
	maxParameters = 1024
	maxFields     = 8192
	maxChain      = 32 // typedefs, qualifiers, abstract origins, one after the other
)

// ErrNone says that the file has no DWARF.
var ErrNone = errors.New("no debug information")

const (
	languageGo  = 0x16 // DW_LANG_Go
	addressSize = 8    // x86-64
)

// Data is the debug information of one executable. Its methods are not safe for concurrent use.
type Data struct {
	dwarf    *dwarf.Data
	sections map[string][]byte
	versions map[dwarf.Offset]uint8 // of compile units, by the offset of their first entry
	loc2     *loclist.Dwarf2Reader
	loc5     *loclist.Dwarf5Reader
	addr     *godwarf.DebugAddrSection
	units    map[dwarf.Offset]*unit
	types    map[dwarf.Offset]*Type
}

// Load reads the DWARF sections of a file. The error is ErrNone if there are none.
func Load(f *objfile.File) (*Data, error) {
	if !f.HasSection(".debug_info") || !f.HasSection(".debug_abbrev") {
		return nil, ErrNone
	}
	names := []string{
		".debug_info", ".debug_abbrev", ".debug_line", ".debug_loclists", ".debug_rnglists",
		".debug_ranges", ".debug_loc", ".debug_str", ".debug_line_str", ".debug_str_offsets", ".debug_addr",
	}
	// Decompressing is most of the time that a question takes: let the largest two have a processor each.
	sections := make(map[string][]byte, len(names))
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
	)
	next := make(chan string, len(names))
	for _, name := range names {
		next <- name
	}
	close(next)
	for range 2 {
		wg.Go(func() {
			for name := range next {
				b, _, err := f.Section(name)
				mu.Lock()
				sections[name] = b
				if err != nil && first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if first != nil {
		return nil, first
	}
	d := newData(sections)
	if err := objfile.Barrier("read debug information", d.parse); err != nil {
		return nil, fmt.Errorf("read debug information: %w", err)
	}
	return d, nil
}

func newData(sections map[string][]byte) *Data {
	return &Data{sections: sections, units: make(map[dwarf.Offset]*unit), types: make(map[dwarf.Offset]*Type)}
}

func (d *Data) parse() error {
	s := d.sections
	var err error
	d.dwarf, err = dwarf.New(s[".debug_abbrev"], nil, nil, s[".debug_info"], s[".debug_line"], nil, s[".debug_ranges"], s[".debug_str"])
	if err != nil {
		return err
	}
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		if b := s[name]; b != nil {
			if err := d.dwarf.AddSection(name, b); err != nil {
				return err
			}
		}
	}
	d.versions = delve.ReadUnitVersions(s[".debug_info"])
	d.addr = godwarf.ParseAddr(s[".debug_addr"])
	if b := s[".debug_loc"]; len(b) > 0 {
		d.loc2 = loclist.NewDwarf2Reader(b, addressSize)
	}
	d.loc5 = loclist.NewDwarf5Reader(s[".debug_loclists"])
	return nil
}

// A unit is a compile unit: what the entries in it are read with.
type unit struct {
	entry     *dwarf.Entry
	version   uint8
	lowPC     uint64
	language  int64
	addrBase  uint64
	listsBase int64
	files     []*dwarf.LineFile
	filesRead bool
	asked     bool
	functions map[uint64]dwarf.Offset // by their first instruction; nil until asked a second time
	bodies    []body                  // sorted; nil until first asked for
}

func (d *Data) unitOf(e *dwarf.Entry) *unit {
	if u, ok := d.units[e.Offset]; ok {
		return u
	}
	u := &unit{entry: e, version: d.versions[e.Offset], listsBase: -1}
	u.lowPC, _ = e.Val(dwarf.AttrLowpc).(uint64)
	u.language, _ = e.Val(dwarf.AttrLanguage).(int64)
	if base, ok := e.Val(dwarf.AttrAddrBase).(int64); ok {
		u.addrBase = uint64(base)
	} else {
		u.addrBase = 8 // behind the section's header: the linker of Go leaves the attribute out where there is one unit
	}
	if base, ok := e.Val(dwarf.AttrLoclistsBase).(int64); ok {
		u.listsBase = base
	}
	d.units[e.Offset] = u
	return u
}

// unitAt finds the compile unit that covers an address, and a reader placed behind its entry.
func (d *Data) unitAt(pc uint64) (*unit, *dwarf.Reader, error) {
	r := d.dwarf.Reader()
	e, err := r.SeekPC(pc)
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return nil, nil, dwarf.ErrUnknownPC
	}
	return d.unitOf(e), r, nil
}

// Producer names the compiler of the unit that covers an address: "Go cmd/compile go1.26.8; regabi", "GNU C17 12.2.0 -O2".
func (d *Data) Producer(pc uint64) string {
	u, _, err := d.unitAt(pc)
	if err != nil {
		return ""
	}
	s, _ := u.entry.Val(dwarf.AttrProducer).(string)
	return s
}

// IsC says whether the unit that covers an address was written in C, by what its compiler says.
func (d *Data) IsC(pc uint64) bool {
	u, _, err := d.unitAt(pc)
	if err != nil {
		return false
	}
	switch u.language {
	case 0x01, 0x02, 0x0c, 0x1d, 0x2c, 0x3e: // DWARF 5, table 7.17, and its registry: C89, C, C99, C11, C17, C23
		return true
	}
	return false
}

// fileName names a source file of a unit by the number that DW_AT_decl_file and DW_AT_call_file use.
func (d *Data) fileName(u *unit, n int64) string {
	if !u.filesRead {
		u.filesRead = true
		if r, err := d.dwarf.LineReader(u.entry); err == nil && r != nil {
			u.files = r.Files()
		}
	}
	if n < 0 || n >= int64(len(u.files)) || u.files[n] == nil {
		return ""
	}
	return u.files[n].Name
}

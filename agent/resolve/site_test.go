// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestSites decides on first instructions of every kind.
func TestSites(t *testing.T) {
	exe := testkit.BuildC(t, "sites", []string{"agent/resolve/testdata/sites.S"}, "-nostdlib", "-static", "-no-pie")
	p, err := open(inputOfFile(t, exe))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		offset  uint64
		bytes   string
		refused string // a part of the reason
	}{
		"plain":             {bytes: "55"},
		"endbranch":         {bytes: "f30f1efa"},
		"nop5":              {offset: 5, bytes: "53"},
		"nop10_twice":       {offset: 15, bytes: "31c0"},
		"nop_only":          {refused: "not where one of its instructions begins"},
		"breakpoint":        {refused: "a breakpoint is in the file itself"},
		"locked":            {refused: "prefix that the kernel refuses"},
		"halts":             {refused: "none of those known to be safe"},
		"vector_first":      {refused: "none of those known to be safe"},
		"unknown_first":     {refused: "+0x0 (0f 04 ff ff c3) cannot be decoded"},
		"loop_head":         {refused: "head of a loop (the branch at +0x9 leads back to it)"},
		"overlapped":        {refused: "branch at +0x7 leads"},
		"calls_itself":      {bytes: "85ff"},
		"table_elsewhere":   {bytes: "89ff"},
		"table_to_entry":    {refused: "a jump table at"},
		"offsets_to_entry":  {refused: "a jump table at"},
		"framed_table":      {bytes: "4883ec18"},
		"tail_call":         {bytes: "488b07"},
		"unknown_harmless":  {bytes: "53"},
		"unknown_loop":      {refused: "head of a loop"},
		"unknown_far_loop":  {refused: "head of a loop"},
		"vector_then_loop":  {refused: "head of a loop"},
		"unknown_then_jump": {refused: "may lead to the place for the probe"},
	} {
		f, err := p.find(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err := p.code(f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		site, err := c.site()
		switch {
		case want.refused != "":
			if err == nil || !strings.Contains(err.Error(), want.refused) {
				t.Errorf("%s: %+v, %v; want a refusal that says %q", name, site, err, want.refused)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case site.Address != f.address+want.offset || hex.EncodeToString(site.Bytes) != want.bytes:
			t.Errorf("%s: +%#x %x, want +%#x %s", name, site.Address-f.address, site.Bytes, want.offset, want.bytes)
		}
	}
}

// TestRelocatedTable has a table of addresses that only the dynamic linker writes.
func TestRelocatedTable(t *testing.T) {
	p := &program{file: nil, relocations: map[uint64]uint64{0x3000: 0x1010, 0x3008: 0x1000, 0x3010: 0x1020}}
	c := &code{p: p, spans: []span{{address: 0x1000, text: make([]byte, 0x40)}}}
	for site, want := range map[uint64]bool{0x1000: true, 0x1004: false, 0x1020: true} {
		r := &reach{c: c, site: site, end: site + 1}
		if got := r.search(8, func(i int) uint64 { return p.relocated()[0x3000+8*uint64(i)] }); got != want {
			t.Errorf("site %#x in the table: %v, want %v", site, got, want)
		}
	}
}

// TestAllFunctions proves a site in nearly every function of a program, the Go runtime and library among them.
func TestAllFunctions(t *testing.T) {
	exe := testkit.BuildGo(t, "test/targets/gofuncs")
	p, err := open(inputOfFile(t, exe))
	if err != nil {
		t.Fatal(err)
	}
	var all, behind, refused int
	var last uint64
	for _, s := range p.symbols {
		if s.Address == last || s.Size == 0 {
			continue
		}
		last = s.Address
		all++
		f := &function{name: s.Name, address: s.Address}
		if err := p.attachDebug(f); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		c, err := p.code(f)
		if err != nil {
			refused++
			t.Logf("%s: %v", s.Name, err)
			continue
		}
		site, err := c.site()
		switch {
		case err != nil:
			refused++
			t.Logf("%s: %v", s.Name, err)
		case site.Where == "after the stack check":
			behind++
		case strings.Contains(site.Where, "counts twice"):
			t.Errorf("%s: %s", s.Name, site.Where)
		}
		if f.debug != nil {
			p.signature(f)
		}
	}
	t.Logf("%d functions, %d behind the stack check, %d refused", all, behind, refused)
	if all < 1000 || behind < all/2 || refused > all/50 {
		t.Errorf("%d functions, %d behind the stack check, %d refused", all, behind, refused)
	}
}

// FuzzCode takes any bytes for a function: a site is never where a branch of it leads.
func FuzzCode(f *testing.F) {
	f.Add([]byte{0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3})
	f.Add([]byte{0xc6, 0x07, 0x01, 0x48, 0xff, 0xc7, 0x75, 0xf8, 0xc3})
	f.Add([]byte{0x00, 0x04, 0x00, 0xd1, 0xe0, 0xff, 0xff, 0xb5, 0xc0, 0x03, 0x5f, 0xd6}) // sub x0, x0, 1; cbnz x0, -4; ret
	f.Fuzz(func(t *testing.T, text []byte) {
		const low = 0x400000
		for _, m := range machines {
			p := &program{machine: m, isGo: true, frames: &debuginfo.Frames{}, relocations: map[uint64]uint64{0: 0}, file: &objfile.File{}}
			c := &code{p: p, isGo: true, spans: []span{{low, text}}}
			err := objfile.Barrier("prove", func() error {
				if _, err := c.returnSites(); err == nil && len(text) == 0 {
					t.Error("nothing returns")
				}
				site, err := c.site()
				if err != nil {
					return nil //nolint:nilerr // refusing is always right
				}
				for at := 0; at < len(text); {
					i, ok := m.decode(text[at:], low+uint64(at))
					if !ok {
						break
					}
					if i.direct && i.flow != flowCall && i.to == site.Address && !strings.Contains(site.Where, "counts twice") {
						t.Errorf("%s: +%#x of % x leads to %+v", m.arch, at, text, site)
					}
					at += i.length
				}
				return nil
			})
			_ = err // a function that refers to memory: there is no file here
			m.prologue(m, text)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"io"
	"slices"
	"sort"
)

// Bounds of one question about an address.
const (
	maxBodies  = 1 << 20 // functions with code in one unit
	maxInlined = 64      // calls that are inlined into each other
)

// A body is a range of code of a function.
type body struct {
	low, high uint64
	entry     dwarf.Offset
}

// CallsAt says what source the instruction at an address is of: the innermost function first, the others around it being those
// that it was inlined into, the last being the function with code of its own. Functions have the linker's names if they have one. Each but the first is at its call of the one before.
// There is none where no function is known to be.
func (d *Data) CallsAt(pc uint64) ([]Place, error) {
	u, r, err := d.unitAt(pc)
	if errors.Is(err, dwarf.ErrUnknownPC) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if u.bodies == nil {
		if u.bodies, err = d.bodiesOf(r); err != nil {
			return nil, err
		}
	}
	i := sort.Search(len(u.bodies), func(i int) bool { return u.bodies[i].low > pc })
	if i == 0 || pc >= u.bodies[i-1].high {
		return nil, nil
	}
	chain, err := d.inlinedAt(u.bodies[i-1].entry, pc)
	if err != nil {
		return nil, err
	}
	at := Place{}
	if at.File, at.Line, err = d.lineAt(u, pc); err != nil {
		return nil, err
	}
	var places []Place
	for _, e := range slices.Backward(chain) {
		names, err := d.chain(e)
		if err != nil {
			return nil, err
		}
		// In C++ and Rust the linker's name says what the function is a member of.
		if at.Function, _ = first(names, dwarf.AttrLinkageName).(string); at.Function == "" {
			at.Function, _ = first(names, dwarf.AttrName).(string)
		}
		places = append(places, at)
		file, _ := e.Val(dwarf.AttrCallFile).(int64)
		line, _ := e.Val(dwarf.AttrCallLine).(int64)
		at = Place{File: d.fileName(u, file), Line: int(line)}
	}
	return places, nil
}

// bodiesOf lists the functions with code of the unit behind whose entry a reader is placed, sorted.
func (d *Data) bodiesOf(r *dwarf.Reader) ([]body, error) {
	list := []body{}
	for range maxEntries {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == dwarf.TagCompileUnit || e.Tag == dwarf.TagPartialUnit {
			break
		}
		switch e.Tag {
		case dwarf.TagNamespace:
			continue // its children are functions too
		case dwarf.TagSubprogram:
			ranges, err := d.dwarf.Ranges(e)
			if err != nil {
				return nil, err
			}
			for _, x := range ranges {
				if x[0] < x[1] && len(list) < maxBodies {
					list = append(list, body{x[0], x[1], e.Offset})
				}
			}
		}
		if err := d.skip(r, e); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b body) int { return cmp.Compare(a.low, b.low) })
	return list, nil
}

// inlinedAt are a function's entry and those of the calls in it, one inside the other, that were replaced by the code at an address.
func (d *Data) inlinedAt(function dwarf.Offset, pc uint64) ([]*dwarf.Entry, error) {
	r := d.dwarf.Reader()
	r.Seek(function)
	e, err := r.Next()
	if err != nil || e == nil {
		return nil, err
	}
	chain := []*dwarf.Entry{e}
	if !e.Children {
		return chain, nil
	}
	for depth, turns := 1, 0; depth > 0 && turns < maxEntries && len(chain) < maxInlined; turns++ {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		switch e.Tag {
		case 0:
			depth--
			continue
		case dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
			ranges, err := d.dwarf.Ranges(e)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(ranges, func(x [2]uint64) bool { return x[0] <= pc && pc < x[1] }) {
				break
			}
			if e.Tag == dwarf.TagInlinedSubroutine {
				chain = append(chain, e)
			}
			if e.Children {
				depth++
			}
			continue
		}
		if err := d.skip(r, e); err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// lineAt is the line of source of an instruction; no line where the tables know none. LineReader.SeekPC is of no use here: it
// takes the sequences of a table to be in the order of their addresses, and linkers put what runs first or seldom elsewhere.
func (d *Data) lineAt(u *unit, pc uint64) (file string, line int, err error) {
	r, err := d.dwarf.LineReader(u.entry)
	if err != nil || r == nil {
		return "", 0, err
	}
	last := dwarf.LineEntry{EndSequence: true}
	for range maxEntries {
		var e dwarf.LineEntry
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", 0, err
		}
		if !last.EndSequence && last.Address <= pc && pc < e.Address {
			if last.File != nil {
				file = last.File.Name
			}
			return file, last.Line, nil
		}
		last = e
	}
	return "", 0, nil
}

// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"debug/dwarf"
	"errors"
)

// A Place is a line of source, in a function if that is known.
type Place struct {
	Function string
	File     string
	Line     int
}

// An Inlined is a function that was inlined: into which places, of which at most the limit are listed.
type Inlined struct {
	Name   string
	Places []Place
	Sum    int
}

// InlinedAt finds the calls of a function that have its code in their place.
func (d *Data) InlinedAt(f *Function, limit int) (*Inlined, error) {
	if !f.Inlined {
		return &Inlined{Name: f.Name}, nil
	}
	found, err := d.inlined(limit, func(e *dwarf.Entry) (string, bool) { return f.Name, e.Offset == f.origin })
	if err != nil || len(found) == 0 {
		return &Inlined{Name: f.Name}, err
	}
	return found[0], nil
}

// InlinedNamed finds the functions whose names match, and that were inlined, by name.
func (d *Data) InlinedNamed(match func(name string) bool, limit int) ([]*Inlined, error) {
	return d.inlined(limit, func(e *dwarf.Entry) (string, bool) {
		name, _ := e.Val(dwarf.AttrName).(string)
		return name, name != "" && match(name)
	})
}

// inlined walks over all entries once: an abstract function can stand behind the places that it was inlined into.
func (d *Data) inlined(limit int, match func(*dwarf.Entry) (string, bool)) ([]*Inlined, error) {
	type call struct {
		origin, in dwarf.Offset
		unit       *dwarf.Entry
		file, line int64
	}
	var (
		calls     []call
		abstract  = make(map[dwarf.Offset]string)
		unitEntry *dwarf.Entry
		in        dwarf.Offset
	)
	r := d.dwarf.Reader()
	for range maxEntries {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		switch e.Tag {
		case dwarf.TagCompileUnit, dwarf.TagPartialUnit:
			unitEntry = e
		case dwarf.TagSubprogram:
			in = e.Offset
			if e.Val(dwarf.AttrInline) == nil {
				continue
			}
			if name, ok := match(e); ok && len(abstract) < 1<<16 {
				abstract[e.Offset] = name
			}
		case dwarf.TagInlinedSubroutine:
			origin, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
			if !ok || unitEntry == nil {
				continue
			}
			if len(calls) == 8<<20 {
				return nil, errors.New("too many inlined calls")
			}
			c := call{origin: origin, in: in, unit: unitEntry}
			c.file, _ = e.Val(dwarf.AttrCallFile).(int64)
			c.line, _ = e.Val(dwarf.AttrCallLine).(int64)
			calls = append(calls, c)
		}
	}
	byName := make(map[string]*Inlined)
	var list []*Inlined
	for _, c := range calls {
		name, ok := abstract[c.origin]
		if !ok {
			continue
		}
		of := byName[name]
		if of == nil {
			of = &Inlined{Name: name}
			byName[name] = of
			list = append(list, of)
		}
		if of.Sum++; len(of.Places) < limit {
			of.Places = append(of.Places, Place{
				Function: d.functionName(c.in), File: d.fileName(d.unitOf(c.unit), c.file), Line: int(c.line),
			})
		}
	}
	return list, nil
}

func (d *Data) functionName(off dwarf.Offset) string {
	r := d.dwarf.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil || e == nil {
		return ""
	}
	chain, err := d.chain(e)
	if err != nil {
		return ""
	}
	name, _ := first(chain, dwarf.AttrName).(string)
	return name
}

// A Named is a function with code of its own, as a walk finds it.
type Named struct {
	Name          string
	Address, Size uint64
}

// Functions walks over the debug information for every function with code: for files whose symbol table was taken away.
func (d *Data) Functions() ([]Named, error) {
	var list []Named
	r := d.dwarf.Reader()
	for range maxEntries {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		if e.Tag != dwarf.TagSubprogram {
			continue
		}
		low, ok := d.lowPC(e)
		if !ok {
			continue
		}
		chain, err := d.chain(e)
		if err != nil {
			return nil, err
		}
		name, _ := first(chain, dwarf.AttrName).(string)
		if name == "" {
			continue
		}
		n := Named{Name: name, Address: low}
		if ranges, err := d.dwarf.Ranges(e); err == nil {
			for _, r := range ranges {
				if r[0] == low {
					n.Size = r[1] - r[0]
				}
			}
		}
		list = append(list, n)
	}
	return list, nil
}

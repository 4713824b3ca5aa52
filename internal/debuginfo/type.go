// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-delve/delve/pkg/dwarf/godwarf"
)

// Kind is the shape of a type, with typedefs and qualifiers taken off.
type Kind int

// The kinds of type. KindGo... are types of the Go language whose DWARF says them to be structs or pointers.
const (
	KindOther Kind = iota
	KindVoid
	KindInt
	KindUint
	KindBool
	KindFloat
	KindComplex // two numbers of half its size
	KindPointer
	KindStruct // unions too
	KindArray
	KindGoString
	KindGoSlice
	KindGoOther // interface, map, channel, function
)

// A Type is what a value's bytes mean. Types of fields and elements are read when they are asked for: the closure of one type
// of a Go program can be thousands of types.
type Type struct {
	Name   string // in the source language: "*main.Cart", "const char *"
	Kind   Kind
	Size   int64  // bytes; 0: not known
	Count  int64  // KindArray: elements; 0: not known
	IsChar bool   // C's plain char, of which strings are made
	What   string // KindOther and KindGoOther: what it is, for people: "interface", "complex number"

	entry    dwarf.Offset // of the struct
	elem     dwarf.Offset // of KindPointer, KindArray, KindGoSlice
	hasElem  bool
	language int64
}

// A Field is a member of a struct or union.
type Field struct {
	Name     string // empty: an anonymous member of C
	Offset   int64
	Bits     bool // a bit field: Offset is that of its first byte, or of the word it lies in
	Embedded bool // Go
	typ      dwarf.Offset
}

// Encodings of base types (DW_ATE_*).
const (
	encodingBool         = 0x02
	encodingComplex      = 0x03
	encodingFloat        = 0x04
	encodingSigned       = 0x05
	encodingSignedChar   = 0x06
	encodingUnsigned     = 0x07
	encodingUnsignedChar = 0x08
	encodingUTF          = 0x10
)

var errNoType = errors.New("a type is described in a place that Keyhole does not read (a type unit or another file)")

// Elem is the type that a pointer points to, or of which an array or slice is made. A C void is of KindVoid.
func (d *Data) Elem(t *Type) (*Type, error) {
	if !t.hasElem {
		return &Type{Name: "void", Kind: KindVoid}, nil
	}
	return d.typeAt(t.elem, t.language)
}

// FieldType is the type of a field.
func (d *Data) FieldType(of *Type, f Field) (*Type, error) { return d.typeAt(f.typ, of.language) }

// Fields lists the members of a KindStruct.
func (d *Data) Fields(t *Type) ([]Field, error) {
	r := d.dwarf.Reader()
	r.Seek(t.entry)
	e, err := r.Next()
	if err != nil || e == nil || !e.Children {
		return nil, err
	}
	var fields []Field
	for len(fields) < maxFields {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == 0 {
			return fields, nil
		}
		if e.Tag == dwarf.TagMember {
			f, err := fieldOf(e)
			if err != nil {
				return nil, err
			}
			fields = append(fields, f)
		}
		if err := d.skip(r, e); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("type %s has more than %d fields", t.Name, maxFields)
}

func fieldOf(e *dwarf.Entry) (Field, error) {
	f := Field{}
	f.Name, _ = e.Val(dwarf.AttrName).(string)
	f.Embedded, _ = e.Val(godwarf.AttrGoEmbeddedField).(bool)
	f.Bits = e.Val(dwarf.AttrBitSize) != nil || e.Val(dwarf.AttrDataBitOffset) != nil
	if bit, ok := e.Val(dwarf.AttrDataBitOffset).(int64); ok {
		f.Offset = bit / 8
	}
	switch at := e.Val(dwarf.AttrDataMemberLoc).(type) {
	case int64:
		f.Offset = at
	case []byte:
		l, err := evaluate(at, nil)
		if err != nil || l.Kind != LocationComputed || l.Base != baseNone || len(l.Loads) > 0 {
			return f, fmt.Errorf("the place of field %s in its struct is computed", f.Name)
		}
		f.Offset = l.Add
	}
	var ok bool
	if f.typ, ok = e.Val(dwarf.AttrType).(dwarf.Offset); !ok {
		return f, errNoType
	}
	return f, nil
}

// typeAt reads the type at an offset, through typedefs and qualifiers.
func (d *Data) typeAt(off dwarf.Offset, language int64) (*Type, error) {
	if t, ok := d.types[off]; ok {
		return t, nil
	}
	t, err := d.readType(off, language, maxChain)
	if err != nil {
		return nil, err
	}
	d.types[off] = t
	return t, nil
}

func (d *Data) readType(off dwarf.Offset, language int64, depth int) (*Type, error) {
	if depth == 0 {
		return nil, errors.New("a type is a chain without end")
	}
	r := d.dwarf.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil {
		return nil, err
	}
	if e == nil || e.Tag == 0 {
		return nil, errNoType
	}
	t := &Type{language: language, entry: off}
	t.Name, _ = e.Val(dwarf.AttrName).(string)
	t.Size, _ = e.Val(dwarf.AttrByteSize).(int64)
	switch field := e.AttrField(dwarf.AttrType); {
	case field == nil:
	case field.Class == dwarf.ClassReference:
		t.elem, t.hasElem = field.Val.(dwarf.Offset)
	default:
		return nil, errNoType
	}
	if kind, ok := e.Val(godwarf.AttrGoKind).(int64); ok && language == languageGo {
		if d.goType(t, e, reflect.Kind(kind)) {
			return t, nil
		}
	}
	switch e.Tag {
	case dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
		return d.alias(t, e.Tag, depth)
	case dwarf.TagBaseType:
		baseType(t, e)
	case dwarf.TagEnumerationType:
		d.enumeration(t, e, depth)
	case dwarf.TagPointerType:
		t.Kind, t.Size = KindPointer, addressSize
		if language != languageGo {
			t.Name = "void *"
			if t.hasElem {
				t.Name = d.nameOf(t.elem, depth-1)
				if !strings.HasSuffix(t.Name, "*") {
					t.Name += " "
				}
				t.Name += "*"
			}
		}
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType:
		t.Kind = KindStruct
		if language != languageGo {
			word := map[dwarf.Tag]string{dwarf.TagStructType: "struct", dwarf.TagClassType: "class", dwarf.TagUnionType: "union"}[e.Tag]
			if t.Name == "" {
				t.Name = "{...}"
			}
			t.Name = word + " " + t.Name
		}
	case dwarf.TagArrayType:
		return t, d.array(t, r, e, depth)
	case dwarf.TagSubroutineType:
		t.Kind, t.What = KindOther, "function"
	default:
		t.Kind, t.What = KindOther, "type of a kind that Keyhole does not read"
	}
	return t, nil
}

// goType sets what only Go's own attributes say. It reports false for a type that the DWARF describes well by itself.
func (d *Data) goType(t *Type, e *dwarf.Entry, kind reflect.Kind) bool {
	switch kind {
	case reflect.String:
		t.Kind, t.Size = KindGoString, 2*addressSize
	case reflect.Slice:
		t.Kind, t.Size = KindGoSlice, 3*addressSize
		t.elem, t.hasElem = e.Val(godwarf.AttrGoElem).(dwarf.Offset)
	case reflect.UnsafePointer:
		t.Kind, t.Size, t.hasElem = KindPointer, addressSize, false
	case reflect.Interface:
		t.Kind, t.Size, t.What = KindGoOther, 2*addressSize, kind.String()
	case reflect.Map, reflect.Chan, reflect.Func:
		t.Kind, t.Size, t.What = KindGoOther, addressSize, kind.String()
	default:
		return false
	}
	// Named types come as a typedef: what the attribute says is the kind of what it stands for.
	if e.Tag == dwarf.TagTypedef && t.Kind == KindGoSlice && !t.hasElem {
		return false
	}
	return true
}

func (d *Data) alias(t *Type, tag dwarf.Tag, depth int) (*Type, error) {
	if !t.hasElem {
		name := t.Name
		if name == "" {
			name = qualified(tag, "void")
		}
		return &Type{Name: name, Kind: KindVoid}, nil
	}
	of, err := d.readType(t.elem, t.language, depth-1)
	if err != nil {
		return nil, err
	}
	alias := *of
	if tag == dwarf.TagTypedef {
		alias.Name = t.Name
		// int8_t is a signed char by its encoding and no text.
		alias.IsChar = false
	} else {
		alias.Name = qualified(tag, of.Name)
	}
	return &alias, nil
}

func qualified(tag dwarf.Tag, name string) string {
	word := map[dwarf.Tag]string{
		dwarf.TagConstType: "const", dwarf.TagVolatileType: "volatile", dwarf.TagRestrictType: "restrict", dwarf.TagAtomicType: "_Atomic",
	}[tag]
	if n := len(name); n > 0 && name[n-1] == '*' {
		return name + word // const behind the star belongs to the pointer
	}
	return word + " " + name
}

// nameOf names a type without reading more of it than its chain of pointers and qualifiers.
func (d *Data) nameOf(off dwarf.Offset, depth int) string {
	t, err := d.readType(off, 0, depth)
	if err != nil {
		return "?"
	}
	return t.Name
}

func baseType(t *Type, e *dwarf.Entry) {
	encoding, _ := e.Val(dwarf.AttrEncoding).(int64)
	switch encoding {
	case encodingBool:
		t.Kind = KindBool
	case encodingSigned, encodingSignedChar:
		t.Kind = KindInt
	case encodingUnsigned, encodingUnsignedChar, encodingUTF:
		t.Kind = KindUint
	case encodingFloat:
		t.Kind = KindFloat
	case encodingComplex:
		t.Kind, t.What = KindComplex, "complex number"
		return
	default:
		t.What = "number of encoding " + strconv.FormatInt(encoding, 10)
	}
	t.IsChar = t.Name == "char" && t.Size == 1
	if e.Val(dwarf.AttrBitSize) != nil && t.Kind != KindFloat {
		t.Kind, t.What = KindOther, "number of an odd width"
	}
	switch t.Size {
	case 1, 2, 4, 8:
	default:
		if t.Kind != KindOther {
			t.Kind, t.What = KindOther, strconv.FormatInt(t.Size, 10)+"-byte number"
		}
	}
	if t.Kind == KindFloat && t.Size < 4 {
		t.Kind, t.What = KindOther, "short floating-point number"
	}
}

// enumeration is shown as its number. GCC and clang say of which integer type it is.
func (d *Data) enumeration(t *Type, e *dwarf.Entry, depth int) {
	t.Kind = KindUint
	if t.hasElem {
		if of, err := d.readType(t.elem, t.language, depth-1); err == nil {
			t.Kind, t.Size, t.What = of.Kind, of.Size, of.What
		}
	} else if encoding, _ := e.Val(dwarf.AttrEncoding).(int64); encoding == encodingSigned {
		t.Kind = KindInt
	}
	switch t.Size {
	case 1, 2, 4, 8:
	default:
		t.Kind, t.What = KindOther, "enumeration of unknown size"
	}
	t.hasElem = false
	t.Name = "enum " + t.Name
}

func (d *Data) array(t *Type, r *dwarf.Reader, e *dwarf.Entry, depth int) error {
	t.Kind = KindArray
	dimensions := 0
	for e.Children && dimensions < maxChain {
		kid, err := r.Next()
		if err != nil {
			return err
		}
		if kid == nil || kid.Tag == 0 {
			break
		}
		if kid.Tag == dwarf.TagSubrangeType {
			dimensions++
			if count, ok := kid.Val(dwarf.AttrCount).(int64); ok {
				t.Count = count
			} else if last, ok := kid.Val(dwarf.AttrUpperBound).(int64); ok && last >= 0 && last < 1<<40 {
				t.Count = last + 1
			}
		}
		if err := d.skip(r, kid); err != nil {
			return err
		}
	}
	if dimensions > 1 {
		t.Kind, t.What = KindOther, "array of several dimensions"
	}
	if t.Size == 0 && t.Count > 0 && t.hasElem {
		if elem, err := d.readType(t.elem, t.language, depth-1); err == nil && elem.Size > 0 && elem.Size < 1<<40/t.Count {
			t.Size = elem.Size * t.Count
		}
	}
	if t.language != languageGo && t.hasElem {
		t.Name = d.nameOf(t.elem, depth-1) + "[" + strconv.FormatInt(t.Count, 10) + "]"
	}
	return nil
}

// skip passes over the children of an entry that r has just returned.
func (d *Data) skip(r *dwarf.Reader, e *dwarf.Entry) error {
	if !e.Children {
		return nil
	}
	if next, ok := e.Val(dwarf.AttrSibling).(dwarf.Offset); ok && next > e.Offset {
		r.Seek(next)
		return nil
	}
	// Not Reader.SkipChildren: it calls itself once a level, and the levels are the file's.
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e == nil {
			return errors.New("debug information ends inside an entry")
		}
		switch {
		case e.Tag == 0:
			depth--
		case e.Children:
			depth++
		}
	}
	return nil
}

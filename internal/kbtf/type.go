// SPDX-License-Identifier: Apache-2.0

package kbtf

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// A Kind is what a type is below its names and qualifiers.
type Kind int

// The kinds. Other is what no value can be read of: functions, void, what is only declared.
const (
	Other Kind = iota
	Int
	Uint
	Bool
	Char // one byte of text
	Pointer
	Struct // or union
	Array
)

// A Type is one of the kernel's types.
type Type struct {
	Kind Kind
	Name string // as C writes it: "const struct sock *", "__be16"
	Size int64  // in bytes; 0: unknown
	// User marks a pointer into the memory of a process, PerCPU one that is an offset into each processor's own memory. See
	// Types.MarksUserPointers.
	User, PerCPU bool
	Count        int64 // of an Array: its elements

	underlying btf.Type
}

// Elem is what a Pointer points to or an Array holds.
func (t Type) Elem() Type {
	switch u := t.underlying.(type) {
	case *btf.Pointer:
		return typeOf(u.Target)
	case *btf.Array:
		return typeOf(u.Type)
	}
	return Type{Name: "void"}
}

// BigEndian says whether it is a number that the kernel keeps in the network's order, whatever the processor's is.
func (t Type) BigEndian() bool {
	return t.Kind == Uint && (t.Name == "__be16" || t.Name == "__be32" || t.Name == "__be64")
}

// Text says whether the type is one that C keeps text in: a pointer to characters, or an array of them.
func (t Type) Text() bool {
	return (t.Kind == Pointer || t.Kind == Array) && t.Elem().Kind == Char
}

// A Field is a member of a struct or union.
type Field struct {
	Name   string
	Type   Type
	Offset int64 // in bytes from the beginning of the struct that was searched
	Bits   bool  // a bit field: no byte of its own
}

// Fields lists the members of a Struct, those of anonymous members in their place.
func (t Type) Fields() []Field {
	var list []Field
	t.each(func(f Field) bool {
		list = append(list, f)
		return true
	})
	return list
}

// Field finds a member by name, also in anonymous members. The error is ErrNotFound where there is none.
func (t Type) Field(name string) (Field, error) {
	var found *Field
	t.each(func(f Field) bool {
		if f.Name == name {
			found = &f
		}
		return found == nil
	})
	if found == nil {
		return Field{}, fmt.Errorf("field %s of %s: %w", name, t.Name, ErrNotFound)
	}
	return *found, nil
}

// each visits the members that have a name, until visit says that it has seen enough.
func (t Type) each(visit func(Field) bool) {
	visited := 0
	var walk func(members []btf.Member, at int64, depth int) bool
	walk = func(members []btf.Member, at int64, depth int) bool {
		for _, m := range members {
			if visited++; visited > maxMembers {
				return false
			}
			f := Field{Name: m.Name, Type: typeOf(m.Type), Offset: at + int64(m.Offset/8), Bits: m.BitfieldSize != 0 || m.Offset%8 != 0}
			if inner := membersOf(f.Type.underlying); m.Name == "" && inner != nil && depth < maxNesting {
				if !walk(inner, f.Offset, depth+1) {
					return false
				}
			} else if m.Name != "" && !visit(f) {
				return false
			}
		}
		return true
	}
	walk(membersOf(t.underlying), 0, 0)
}

const (
	maxMembers = 4096
	maxNesting = 16
)

func membersOf(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// typeOf describes a type. What it cannot follow is Other.
func typeOf(t btf.Type) Type {
	under, typedef := strip(t)
	out := Type{Name: nameOf(t, maxNesting), underlying: under}
	switch u := under.(type) {
	case *btf.Int:
		out.Size = int64(u.Size)
		out.Kind = Uint
		switch {
		case u.Encoding == btf.Bool:
			out.Kind = Bool
		case u.Size == 1 && typedef == "" && (u.Name == "char" || u.Name == "unsigned char"):
			out.Kind = Char // a typedef such as u8 says that it is a number
		case u.Encoding == btf.Signed:
			out.Kind = Int
		}
	case *btf.Enum:
		out.Kind, out.Size = Uint, int64(u.Size)
		if u.Signed {
			out.Kind = Int
		}
	case *btf.Pointer:
		out.Kind, out.Size = Pointer, 8
		out.User, out.PerCPU = hasTag(u.Target, "user") || ofProcesses(u.Target), hasTag(u.Target, "percpu")
	case *btf.Struct:
		out.Kind, out.Size = Struct, int64(u.Size)
	case *btf.Union:
		out.Kind, out.Size = Struct, int64(u.Size)
	case *btf.Array:
		out.Kind, out.Count = Array, int64(u.Nelems)
		if n, err := btf.Sizeof(u); err == nil {
			out.Size = int64(n)
		}
	}
	return out
}

// strip takes qualifiers, tags and typedefs off a type, and says which typedef was the outermost.
func strip(t btf.Type) (under btf.Type, typedef string) {
	for range maxQualifiers {
		switch q := t.(type) {
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		case *btf.TypeTag:
			t = q.Type
		case *btf.Typedef:
			typedef = cmp.Or(typedef, q.Name)
			t = q.Type
		default:
			return t, typedef
		}
	}
	return (*btf.Void)(nil), typedef
}

// hasTag says whether what a pointer points to has a tag. BTF has the tags of a pointer in front of the qualifiers of its target.
func hasTag(t btf.Type, value string) bool {
	for range maxQualifiers {
		tag, ok := t.(*btf.TypeTag)
		if !ok {
			return false
		}
		if tag.Value == value {
			return true
		}
		t = tag.Type
	}
	return false
}

// processStructs are the structs that the kernel has pointers to as processes gave them, kept in structs of its own unchecked
// (set_robust_list(2), rseq(2)) or handed from function to function, and never pointers to copies. Its source says so of each pointer;
// its BTF, where it has no type tags, of none.
var processStructs = map[string]bool{
	"robust_list": true, "robust_list_head": true, "rseq": true, "mmsghdr": true, "user_msghdr": true, "pollfd": true, "linux_dirent": true,
	"linux_dirent64": true,
}

// ofProcesses says whether a pointer to a type is into the memory of a process whatever its tags are: so are those to
// structs as 32-bit programs have them.
func ofProcesses(t btf.Type) bool {
	under, _ := strip(t)
	s, ok := under.(*btf.Struct)
	return ok && (processStructs[s.Name] || strings.HasPrefix(s.Name, "compat_"))
}

// nameOf writes a type as C does, following at most depth qualifiers, pointers and arrays.
func nameOf(t btf.Type, depth int) string {
	if depth == 0 {
		return "?"
	}
	switch t := t.(type) {
	case *btf.Const:
		if p, ok := t.Type.(*btf.Pointer); ok {
			return nameOf(p, depth-1) // the pointer that cannot be changed, which is of no interest
		}
		return "const " + nameOf(t.Type, depth-1)
	case *btf.Volatile:
		return nameOf(t.Type, depth-1)
	case *btf.Restrict:
		return nameOf(t.Type, depth-1)
	case *btf.TypeTag:
		return nameOf(t.Type, depth-1)
	case *btf.Pointer:
		name := nameOf(t.Target, depth-1)
		if strings.HasSuffix(name, "*") {
			return name + "*"
		}
		return name + " *"
	case *btf.Array:
		return fmt.Sprintf("%s [%d]", nameOf(t.Type, depth-1), t.Nelems)
	case *btf.Struct:
		return strings.TrimSpace("struct " + t.Name)
	case *btf.Union:
		return strings.TrimSpace("union " + t.Name)
	case *btf.Enum:
		return strings.TrimSpace("enum " + t.Name)
	case *btf.Fwd:
		return "struct " + t.Name
	case *btf.FuncProto:
		return "function"
	case *btf.Int:
		return t.Name
	case *btf.Typedef:
		return t.Name
	default:
		return "void"
	}
}

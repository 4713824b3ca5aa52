// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxNested is how deep in a member of a union its own members are named.
const maxNested = 3

// share notes the other names that the bytes of a field have: of the members of the same union, and of what lies in these. Rules look at
// each. so are the names that lead to the union.
func (v *values) share(value *target.Value, so []string, h *hop) {
	fields, err := v.program.debug.Fields(h.in)
	if err != nil {
		miss(value, unsupported(err.Error()))
		return
	}
	for _, f := range fields {
		if f.Name == h.Name && f.Offset == h.Offset {
			continue
		}
		t, err := v.program.debug.FieldType(h.in, f)
		if err != nil {
			miss(value, unsupported(err.Error()))
			return
		}
		size := t.Size
		if f.Bits {
			size = 1
		}
		if overlaps(f.Offset, size, h.Offset, h.typ.Size) {
			v.alias(value, so, f.Name, t, 0)
		}
	}
}

// overlaps says whether two members have a byte in common. One whose size is not known may have.
func overlaps(a, aSize, b, bSize int64) bool {
	return (aSize == 0 || b < a+aSize) && (bSize == 0 || a < b+bSize)
}

// alias adds a member, and those that lie in it.
func (v *values) alias(value *target.Value, so []string, name string, t *debuginfo.Type, depth int) {
	if name != "" {
		so = append(slices.Clone(so), name)
		if len(value.Aliases) == target.MaxAliases {
			miss(value, unsupported(fmt.Sprintf("its bytes have more than %d other names", target.MaxAliases)))
			return
		}
		value.Aliases = append(value.Aliases, target.Alias{Names: so, TypeName: t.Name})
	}
	if t.Kind != debuginfo.KindStruct || depth == maxNested {
		return
	}
	fields, err := v.program.debug.Fields(t)
	if err != nil {
		miss(value, unsupported(err.Error()))
		return
	}
	for _, f := range fields {
		if ft, err := v.program.debug.FieldType(t, f); err == nil {
			v.alias(value, so, f.Name, ft, depth+1)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import "github.com/keyhole-dev/keyhole/internal/debuginfo"

// integers are the registers for arguments that are no floating-point numbers: System V ABI for x86-64, 3.2.3, in DWARF numbers.
var integers = [...]int{5, 4, 1, 2, 8, 9}

// systemV is the System V ABI for x86-64, 3.2.3.
type systemV struct{}

func (s systemV) passedIn(v *values, wanted int) (register int, byAddress, ok bool) {
	const vectors = 8
	integersUsed, vectorsUsed := 0, 0
	f := v.function.debug
	if len(f.Results) == 1 {
		t, err := v.program.debug.Type(f.Results[0])
		if err != nil {
			return 0, false, false
		}
		if t.Kind == debuginfo.KindStruct && t.Size > 16 {
			integersUsed++ // where to put the result
		}
	}
	for i, p := range f.Parameters {
		t, err := v.program.debug.Type(p)
		if err != nil {
			return 0, false, false
		}
		n, x, known := s.registersFor(v, t)
		if !known {
			return 0, false, false
		}
		fit := integersUsed+n <= len(integers) && vectorsUsed+x <= vectors
		if i == wanted {
			return integers[min(integersUsed, len(integers)-1)], false, n == 1 && x == 0 && fit
		}
		if fit {
			integersUsed, vectorsUsed = integersUsed+n, vectorsUsed+x
		}
	}
	return 0, false, false
}

// registersFor counts the general and the vector registers that an argument takes: none if it is passed in memory.
func (systemV) registersFor(v *values, t *debuginfo.Type) (general, vector int, known bool) {
	var class [2]struct{ used, integer bool } // of each 8 bytes
	if t.Kind == debuginfo.KindStruct && t.Size > 16 {
		return 0, 0, true
	}
	ok := v.eachScalar(t, 0, maxLoads, func(at int64, scalar *debuginfo.Type) bool {
		if at < 0 || at/8 > 1 || scalar.Size <= 0 || at%scalar.Size != 0 {
			return false // packed: not followed
		}
		class[at/8].used = true
		class[at/8].integer = class[at/8].integer || scalar.Kind != debuginfo.KindFloat
		return true
	})
	for _, c := range class {
		switch {
		case c.integer:
			general++
		case c.used:
			vector++
		}
	}
	return general, vector, ok
}

func (s systemV) returned(v *values, i int) (place, *missing) {
	t, err := v.program.debug.Type(v.function.debug.Results[i])
	if err != nil {
		return place{}, unsupported(err.Error())
	}
	const rax, rdx = 0, 1 // or where the caller said, which rax tells
	general, vector, known := s.registersFor(v, t)
	switch {
	case !known:
		return place{}, unsupported("it is not known where its type is returned")
	case vector > 0:
		return place{}, vectorRegister()
	case general == 0:
		return inMemory(memory{register: rax}), nil
	case general == 1:
		return place{pieces: []piece{{size: 8, register: rax}}}, nil
	default:
		return place{pieces: []piece{{size: 8, register: rax}, {from: 8, size: 8, register: rdx}}}, nil
	}
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import "github.com/keyhole-dev/keyhole/internal/debuginfo"

// aapcs64 is the Procedure Call Standard for the Arm 64-bit Architecture, 6.8.2 and 6.9: x0 to x7, and as many vector registers.
type aapcs64 struct{}

// maxHomogeneous is of how many floating-point numbers a struct may be that vector registers take.
const maxHomogeneous = 4

// An armClass is how a type is passed: in so many general registers, of which the first is an even one if it must be; in vector
// registers; or, as a copy that one general register points to.
type armClass struct {
	general, vector int
	even, byAddress bool
}

func (a aapcs64) passedIn(v *values, wanted int) (register int, byAddress, ok bool) {
	const registers = 8
	general, vector := 0, 0
	for i, p := range v.function.debug.Parameters {
		t, err := v.program.debug.Type(p)
		if err != nil {
			return 0, false, false
		}
		c, known := a.class(v, t)
		if !known {
			return 0, false, false
		}
		if c.even {
			general += general % 2
		}
		// What does not fit leaves no register to those behind it.
		if i == wanted {
			return general, c.byAddress, c.general == 1 && general < registers
		}
		general, vector = general+c.general, vector+c.vector
		if general > registers {
			general = registers
		}
		if vector > registers {
			vector = registers
		}
	}
	return 0, false, false
}

func (a aapcs64) returned(v *values, i int) (place, *missing) {
	t, err := v.program.debug.Type(v.function.debug.Results[i])
	if err != nil {
		return place{}, unsupported(err.Error())
	}
	switch c, known := a.class(v, t); {
	case !known:
		return place{}, unsupported("it is not known where its type is returned")
	case c.vector > 0:
		return place{}, vectorRegister()
	case c.byAddress:
		return place{}, unsupported("it is returned in memory of the caller's, whose address is gone at the return")
	case c.general == 1:
		return place{pieces: []piece{{size: 8, register: 0}}}, nil
	default:
		return place{pieces: []piece{{size: 8, register: 0}, {from: 8, size: 8, register: 1}}}, nil
	}
}

func (aapcs64) class(v *values, t *debuginfo.Type) (c armClass, known bool) {
	var floats, others int
	var float int64
	homogeneous := true
	known = v.eachScalar(t, 0, maxLoads, func(_ int64, scalar *debuginfo.Type) bool {
		if scalar.Kind == debuginfo.KindFloat {
			homogeneous = homogeneous && (floats == 0 || scalar.Size == float)
			float = scalar.Size
			floats++
		} else {
			others++
			c.even = c.even || scalar.Size > 8
		}
		return true
	})
	switch {
	case t.Kind == debuginfo.KindStruct && t.Size > maxHomogeneous*16:
		return armClass{general: 1, byAddress: true}, true
	case !known || t.Size <= 0:
		return armClass{}, false
	case others == 0 && homogeneous && floats <= maxHomogeneous:
		c.vector = floats
	case t.Size > 16:
		return armClass{general: 1, byAddress: true}, true
	default:
		c.general = int(t.Size+7) / 8
	}
	return c, true
}

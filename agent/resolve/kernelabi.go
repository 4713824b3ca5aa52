// SPDX-License-Identifier: Apache-2.0

package resolve

import "github.com/keyhole-dev/keyhole/internal/kbtf"

// An argument is where a parameter is at a function's entry.
type argument struct {
	place   place
	missing *missing
}

// A kernelABI is how functions of the kernel are called, which is as C functions are called without floating-point numbers.
type kernelABI struct {
	registers      []int // of arguments, in DWARF numbers
	largeByAddress bool  // structs of more than 16 bytes are passed by an address in a register, not on the stack
	packedOnStack  bool  // and so are structs of any size whose fields are not aligned
	largeResult    bool  // the address of a result of more than 16 bytes takes the first register
	evenPairs      bool  // numbers of 16 bytes begin at an even register
	fill           bool  // what is passed on the stack leaves the registers to what follows
}

// System V ABI AMD64 3.2.3; AAPCS64 6.8.2.
var kernelABIs = map[string]kernelABI{
	"amd64": {registers: integers[:], packedOnStack: true, largeResult: true, fill: true},
	"arm64": {registers: []int{0, 1, 2, 3, 4, 5, 6, 7}, largeByAddress: true, evenPairs: true},
}

// arguments says where each parameter of a function is at its entry.
func arguments(f *kbtf.Function, arch string) []argument {
	abi, known := kernelABIs[arch]
	list := make([]argument, len(f.Parameters))
	next := 0
	if abi.largeResult && f.Result.Kind == kbtf.Struct && f.Result.Size > 16 {
		next++
	}
	for i, p := range f.Parameters {
		size, byAddress := p.Type.Size, false
		if p.Type.Kind == kbtf.Struct && size > 16 && abi.largeByAddress {
			size, byAddress = 8, true
		}
		n := int(size+7) / 8
		if abi.evenPairs && n == 2 && p.Type.Kind != kbtf.Struct {
			next += next % 2
		}
		switch {
		case !known:
			list[i].missing = unsupported("how functions are called on " + arch + " is not known")
		case n > 2, next+n > len(abi.registers), abi.packedOnStack && p.Type.Kind == kbtf.Struct && !aligned(p.Type):
			list[i].missing = unsupported("it is passed on the stack")
			if !abi.fill {
				next = len(abi.registers)
			}
		case byAddress:
			list[i].place = inMemory(memory{register: abi.registers[next]})
			next++
		default:
			for j := range n {
				list[i].place.pieces = append(list[i].place.pieces, piece{from: int64(8 * j), size: 8, register: abi.registers[next+j]})
			}
			next += n
		}
	}
	return list
}

// aligned says whether each number in a struct lies at a multiple of its size.
func aligned(t kbtf.Type) bool {
	for _, f := range t.Fields() {
		switch f.Type.Kind {
		case kbtf.Struct, kbtf.Array:
			if !aligned(f.Type) {
				return false
			}
		default:
			if !f.Bits && f.Type.Size > 0 && f.Offset%f.Type.Size != 0 {
				return false
			}
		}
	}
	return true
}

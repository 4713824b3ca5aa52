// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// setPatterns makes the map as big as the image and fills it.
func setPatterns(m *ebpf.MapSpec, image *dfa.Image) error {
	type tables = bpf.UprobeKhTables
	const words = unsafe.Offsetof(tables{}.Words)
	value := make([]byte, words, words+uintptr(2*len(image.Words)))
	for i, h := range image.Machines {
		at := value[unsafe.Offsetof(tables{}.Machines)+uintptr(i)*unsafe.Sizeof(bpf.UprobeKhMachine{}):]
		if _, err := binary.Encode(at, binary.NativeEndian, h); err != nil {
			return fmt.Errorf("encode a machine: %w", err)
		}
	}
	if _, err := binary.Encode(value[unsafe.Offsetof(tables{}.Features):], binary.NativeEndian, image.Features); err != nil {
		return fmt.Errorf("encode the features: %w", err)
	}
	copy(value[unsafe.Offsetof(tables{}.Kinds):], image.Kinds[:])
	value, err := binary.Append(value, binary.NativeEndian, image.Words)
	if err != nil {
		return fmt.Errorf("encode the tables: %w", err)
	}
	m.ValueSize = uint32(len(value))
	m.Value = nil // the type says the most that there can be
	m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: value}}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// patterns are the machines that a plan's values are searched with, and for each of its sets which of them these are, by their bits.
func patterns(p *plan.Plan) (*dfa.Image, [bpf.UprobeKhLimitKH_MAX_SETS]uint32, error) {
	var machines []*dfa.Machine
	var wanted [bpf.UprobeKhLimitKH_MAX_SETS]uint32
	for i, list := range p.Sets {
		of, err := detect.Machines(list)
		if err != nil {
			return nil, wanted, err
		}
		for _, m := range of {
			at := slices.Index(machines, m)
			if at < 0 {
				at = len(machines)
				machines = append(machines, m)
			}
			wanted[i] |= 1 << at
		}
	}
	image, err := dfa.NewImage(machines)
	if err != nil {
		return nil, wanted, fmt.Errorf("lay out the patterns: %w", err)
	}
	return image, wanted, nil
}

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

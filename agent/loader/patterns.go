// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// setPatterns makes the map as big as the image and fills it.
func setPatterns(m *ebpf.MapSpec, image *dfa.Image) {
	value := image.Bytes()
	m.ValueSize = uint32(len(value))
	m.Value = nil // the type says the most that there can be
	m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: value}}
}

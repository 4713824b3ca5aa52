// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/event"
)

// histogramScale is that of the program's buckets: eight for each power of two.
const histogramScale = 3

// Groups calls f with the key and the hits of each group. Keys last until f returns; they are for decode.Decoder.Group. Groups that
// come while it goes on may be left out.
func (r *Reader) Groups(f func(key []byte, hits uint64) error) error {
	if r.counted == nil || r.counted.Type() != ebpf.Hash {
		return errors.New("read groups: the plan counts in none")
	}
	var key [groupBytes]byte
	var hits uint64
	groups := r.counted.Iterate()
	for groups.Next(&key, &hits) {
		if err := f(key[:], hits); err != nil {
			return err
		}
	}
	if err := groups.Err(); err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	return nil
}

const groupBytes = 8 + int(bpf.UprobeKhLimitKH_GROUP_BYTES)

// Histogram returns the numbers that were counted.
func (r *Reader) Histogram() (*event.Histogram, error) {
	if r.counted == nil || r.counted.Type() != ebpf.Array {
		return nil, errors.New("read histogram: the plan counts in none")
	}
	var b bpf.UprobeKhBuckets
	if err := r.counted.Lookup(uint32(0), &b); err != nil {
		return nil, fmt.Errorf("read histogram: %w", err)
	}
	return &event.Histogram{
		Scale: histogramScale, Zero: b.Zero, Missing: b.Missing, Sum: b.Sum, Positive: trim(b.Positive[:]), Negative: trim(b.Negative[:]),
	}, nil
}

// trim leaves out empty buckets on both sides. The first of the program's buckets is number -1.
func trim(counts []uint64) event.Buckets {
	first, end := 0, len(counts)
	for first < end && counts[first] == 0 {
		first++
	}
	for end > first && counts[end-1] == 0 {
		end--
	}
	if first == end {
		return event.Buckets{}
	}
	return event.Buckets{Offset: first - 1, Counts: counts[first:end:end]}
}

// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// Validate says why an image is not to be given to the kernel, whoever made it: a number of it is out of its range, or a state that can be
// reached leads to what is no row of its own table. The kernel masks every index, so that such an image would harm nobody, but it would
// find something else than it should.
func (i *Image) Validate() error {
	if len(i.Machines) > MaxMachines || len(i.Words) == 0 || len(i.Words) > MaxWords || bits.OnesCount(uint(len(i.Words))) != 1 {
		return fmt.Errorf("%d patterns in %d words: out of bounds", len(i.Machines), len(i.Words))
	}
	for c := range 256 {
		known := uint16(0)
		for n, has := range features {
			if has(byte(c)) {
				known |= 1 << n
			}
		}
		if c >= 0x80 {
			known |= notASCII
		}
		if i.Features[c] != known || i.Kinds[c] != uint8(kindOf(byte(c))) {
			return fmt.Errorf("byte %#x is taken for another", c)
		}
	}
	end := uint32(len(i.Words))
	if len(i.Machines) > 0 {
		end = i.Machines[0].Classes
	}
	if err := i.Gate.validate(i.Words, end); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	for n := range i.Machines {
		end := uint32(len(i.Words))
		if n+1 < len(i.Machines) {
			end = i.Machines[n+1].Classes
		}
		begin := i.Gate.Next + i.Gate.Flags + 1
		if n > 0 {
			begin = i.Machines[n-1].Backward + i.Machines[n-1].Flags + 1
		}
		if err := i.Machines[n].validate(i.Words, begin, end); err != nil {
			return fmt.Errorf("pattern %d: %w", n, err)
		}
	}
	return nil
}

// validate looks at one machine, which may take the words from begin to end.
func (h *Header) validate(words []uint16, begin, end uint32) error {
	stride := h.Flags + 1
	switch {
	case h.Flags < 1 || h.Flags > 256:
		return fmt.Errorf("%d classes of bytes", h.Flags)
	case h.Classes < begin || end > uint32(len(words)) || h.Classes > end || h.Forward != h.Classes+256 || h.Backward <= h.Forward || h.Backward >= end:
		return errors.New("its tables are not one behind the other")
	case (h.Backward-h.Forward)%stride != 0:
		return errors.New("a part of a row is in front of the second table")
	case h.Check > uint32(Mod97) || h.Required>>len(features) != 0 || h.Hints>>MaxHints != 0:
		return fmt.Errorf("check %d, features %#x, hints %#x: unknown", h.Check, h.Required, h.Hints)
	}
	for _, class := range words[h.Classes:h.Forward] {
		if uint32(class) >= h.Flags {
			return fmt.Errorf("a byte has class %d of %d", class, h.Flags)
		}
	}
	forward, backward := words[h.Forward:h.Backward], words[h.Backward:end]
	edges := []uint32{0, h.ForwardDeadMatch, h.ForwardDead, h.ForwardMatch, uint32(len(forward))}
	for n, edge := range edges[1:] {
		if edge < edges[n] || edge%stride != 0 {
			return fmt.Errorf("rows that end at word %d of %d", edge, len(forward))
		}
	}
	if h.BackwardMatch > uint32(len(backward)) || h.BackwardMatch%stride != 0 {
		return fmt.Errorf("rows that end at word %d of %d", h.BackwardMatch, len(backward))
	}
	if err := walk(forward, stride, 1, atEnd, h.Start[:]...); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if err := walk(backward, stride, 1, atEnd, h.BackwardStart, h.BackwardCut); err != nil {
		return fmt.Errorf("backward: %w", err)
	}
	return nil
}

// atEnd says whether the last word of a row is one that machines' rows have.
func atEnd(flags uint16) bool { return flags == 0 || flags == uint16(FlagAtEnd) }

// walk follows a table from its first states to all that can be reached. Its words are offsets of rows in units of so many words. known says
// whether the last word of a row may be what it is.
func walk(table []uint16, stride, unit uint32, known func(flags uint16) bool, first ...uint32) error {
	from := slices.Clone(first) // which may be a part of the image
	seen := make([]bool, uint32(len(table))/stride+1)
	for len(from) > 0 {
		row := from[len(from)-1]
		from = from[:len(from)-1]
		if row%stride != 0 || row+stride < row || row+stride > uint32(len(table)) {
			return fmt.Errorf("a state leads to word %d, where there is no row of %d words among %d", row, stride, len(table))
		}
		if seen[row/stride] {
			continue
		}
		seen[row/stride] = true
		last := row + stride - 1
		if !known(table[last]) {
			return fmt.Errorf("row %d has the flags %#x", row/stride, table[last])
		}
		for _, to := range table[row:last] {
			to := unit * uint32(to)
			if !seen[min(to/stride, uint32(len(seen))-1)] || to%stride != 0 || to >= uint32(len(table)) {
				from = append(from, to)
			}
		}
	}
	return nil
}

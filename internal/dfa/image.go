// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An Image is machines as the eBPF program reads them: struct kh_tables and struct kh_machine of bpf/types.h say what each number means.
type Image struct {
	Machines []Header
	Gate     GateHeader
	Features [256]uint16
	Kinds    [256]uint8
	Words    []uint16 // a power of two of them
}

// A Header is one machine of an Image.
type Header struct {
	Classes, Forward, Backward, Flags uint32
	Required, Hints                   uint32
	Check                             uint32
	Start                             [kinds]uint32

	ForwardDeadMatch, ForwardDead, ForwardMatch uint32
	BackwardStart, BackwardCut, BackwardMatch   uint32
}

// Bytes is the image as struct kh_tables, in this machine's byte order, with as many words as there are.
func (i *Image) Bytes() []byte {
	var machines [MaxMachines]Header
	copy(machines[:], i.Machines)
	b := make([]byte, 0, binary.Size(machines)+binary.Size(i.Gate)+2*256+256+2*len(i.Words))
	for _, part := range []any{&machines, &i.Gate, &i.Features, &i.Kinds, i.Words} {
		var err error
		if b, err = binary.Append(b, binary.NativeEndian, part); err != nil {
			panic("dfa: an image holds only numbers: " + err.Error())
		}
	}
	return b
}

// Bounds of an image: KH_MAX_MACHINES and KH_MAX_WORDS.
const (
	MaxMachines = 32
	MaxWords    = 1 << 18
)

// notASCII is the feature of bytes that are not ASCII: KH_NOT_ASCII.
const notASCII = 1 << 15

// features are what bytes are looked at for before a machine runs: what every match of it has must be there. Each is a bit, by its index.
var features = []func(b byte) bool{
	func(b byte) bool { return '0' <= b && b <= '9' },
	func(b byte) bool { return 'A' <= b && b <= 'Z' },
	anyOf("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
	anyOf("@%"), anyOf("."), anyOf(":"), anyOf("/"), anyOf("-"), anyOf("="), anyOf("=:"), anyOf(" \t"), anyOf("-._A"), anyOf("J"), anyOf("Bb"), anyOf("Ss"),
}

func anyOf(some string) func(byte) bool {
	return func(b byte) bool { return strings.IndexByte(some, b) >= 0 }
}

// NewImage lays out machines. The error is that they are too many, or too big together.
func NewImage(machines []*Machine) (*Image, error) {
	if len(machines) > MaxMachines {
		return nil, fmt.Errorf("%d patterns at once; the most is %d", len(machines), MaxMachines)
	}
	image := new(Image)
	for c := range 256 {
		b := byte(c)
		image.Kinds[c] = uint8(kindOf(b))
		for i, has := range features {
			if has(b) {
				image.Features[c] |= 1 << i
			}
		}
		if b >= 0x80 {
			image.Features[c] |= notASCII
		}
	}
	gate, err := gateOf(machines)
	if err != nil {
		return nil, err
	}
	image.Gate, image.Words = gate.lay(nil)
	for _, m := range machines {
		if err := m.Validate(); err != nil {
			return nil, err
		}
		h := Header{Check: uint32(m.Check), Required: m.required(), Hints: uint32(m.Hints), Flags: uint32(m.Forward.Classes), Classes: uint32(len(image.Words))}
		for _, class := range m.Class {
			image.Words = append(image.Words, uint16(class))
		}
		h.Forward = uint32(len(image.Words))
		forward := m.Forward.lay(func(flags uint8) int {
			switch flags & (FlagMatch | FlagDead) {
			case FlagMatch | FlagDead:
				return 0
			case FlagDead:
				return 1
			case FlagMatch:
				return 3
			}
			return 2
		})
		h.ForwardDeadMatch, h.ForwardDead, h.ForwardMatch = forward.edges[1], forward.edges[2], forward.edges[3]
		for k, s := range m.Forward.Start {
			h.Start[k] = uint32(forward.row[s])
		}
		image.Words = append(image.Words, forward.words...)
		h.Backward = uint32(len(image.Words))
		backward := m.Backward.lay(func(flags uint8) int {
			if flags&FlagMatch != 0 {
				return 3
			}
			return 0
		})
		h.BackwardMatch = backward.edges[3]
		h.BackwardStart, h.BackwardCut = uint32(backward.row[m.Backward.Start[kindEdge]]), uint32(backward.row[m.Backward.Cut])
		image.Words = append(image.Words, backward.words...)
		image.Machines = append(image.Machines, h)
	}
	n := 1
	for n < len(image.Words) {
		n *= 2
	}
	if n > MaxWords {
		return nil, errors.New("the patterns' tables are too big together: use fewer of them for one probe")
	}
	image.Words = append(image.Words, make([]uint16, n-len(image.Words))...)
	return image, nil
}

// gateOf is the one gate of all machines that have one.
func gateOf(machines []*Machine) (*Gate, error) {
	var gate *Gate
	for _, m := range machines {
		if m.Hints == 0 {
			continue
		}
		if m.Gate == nil || gate != nil && gate != m.Gate {
			return nil, errors.New("patterns that were made with different gates, or with none")
		}
		gate = m.Gate
	}
	return gate, nil
}

// A layout is a table with its rows in the order of their groups.
type layout struct {
	words []uint16
	row   []uint16  // of each state: the offset of its row
	edges [4]uint32 // of each group: the offset of the first row that does not belong to one before it
}

func (t *Table) lay(group func(flags uint8) int) layout {
	order := make([]int, len(t.Flags))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(group(t.Flags[a]), group(t.Flags[b])) })
	l := layout{row: make([]uint16, len(order))}
	stride := t.Classes + 1
	for i, s := range order {
		l.row[s] = uint16(i * stride)
		for g := group(t.Flags[s]) + 1; g < len(l.edges); g++ {
			l.edges[g] = uint32((i + 1) * stride)
		}
	}
	for _, s := range order {
		for _, to := range t.Next[s*t.Classes : (s+1)*t.Classes] {
			l.words = append(l.words, l.row[to])
		}
		l.words = append(l.words, uint16(t.Flags[s]&FlagAtEnd))
	}
	return l
}

// required are the features without which no text matches.
func (m *Machine) required() uint32 {
	var all uint32
	for i, has := range features {
		if !m.matchesWithout(has) {
			all |= 1 << i
		}
	}
	return all
}

// matchesWithout says whether there is a text that matches and has no byte of these.
func (m *Machine) matchesWithout(left func(b byte) bool) bool {
	t := &m.Forward
	var classes []int
	for c := range 256 {
		if !left(byte(c)) {
			classes = append(classes, int(m.Class[c]))
		}
	}
	slices.Sort(classes)
	classes = slices.Compact(classes)
	seen := make([]bool, len(t.Flags))
	queue := slices.Clone(t.Start[:])
	for len(queue) > 0 {
		s := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		if t.Flags[s]&(FlagMatch|FlagAtEnd) != 0 {
			return true
		}
		for _, c := range classes {
			queue = append(queue, t.Next[int(s)*t.Classes+c])
		}
	}
	return false
}

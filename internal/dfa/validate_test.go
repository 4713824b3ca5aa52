// SPDX-License-Identifier: Apache-2.0

package dfa

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func image(t *testing.T) *Image {
	t.Helper()
	var machines []*Machine
	for pattern, check := range map[string]Check{`\w+@\w+(\.\w+)+`: NoCheck, `\b\d{4}( ?\d{4}){3}\b`: Luhn, "key|(pass)?word$": NoCheck} {
		m, err := Compile(pattern, check)
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, m)
	}
	i, err := NewImage(machines)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// follow runs a table as the kernel does, over random bytes, and says whether it ever leaves the rows that there are.
func follow(r *rand.Rand, words []uint16, classes, table, end, stride, row uint32) (left bool) {
	for range 40000 {
		if row%stride != 0 || table+row+stride > end {
			return true
		}
		class := uint32(words[classes+uint32(r.IntN(256))])
		if class >= stride-1 {
			return true
		}
		row = uint32(words[table+row+class])
	}
	return false
}

// TestMalformedImages changes one number of a good image, a thousand times. That each is really malformed is seen without Validate: by running
// the tables until they leave their rows, or because the number is one that nothing can be.
func TestMalformedImages(t *testing.T) {
	good := image(t)
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for refused < 1000 {
		bad := &Image{Machines: slices.Clone(good.Machines), Gate: good.Gate, Features: good.Features, Kinds: good.Kinds, Words: slices.Clone(good.Words)}
		n := r.IntN(len(bad.Machines))
		h := &bad.Machines[n]
		stride, end := h.Flags+1, uint32(len(bad.Words))
		if n+1 < len(bad.Machines) {
			end = bad.Machines[n+1].Classes
		}
		large := end + r.Uint32N(1<<16)
		malformed := true
		switch kind := r.IntN(12); kind {
		case 0:
			bad.Words[h.Classes+r.Uint32N(256)] = uint16(h.Flags + r.Uint32N(200))
		case 1, 2: // where a row of the forward table leads
			bad.Words[h.Forward+r.Uint32N(h.Backward-h.Forward)] = uint16(r.Uint32())
			malformed = false
			for _, start := range h.Start {
				malformed = malformed || follow(r, bad.Words, h.Classes, h.Forward, h.Backward, stride, start)
			}
		case 3:
			h.Start[r.IntN(len(h.Start))] = large * stride
		case 4:
			h.Start[r.IntN(len(h.Start))] += 1 + r.Uint32N(stride-1)
		case 5:
			h.BackwardStart, h.BackwardCut = large*stride, h.BackwardCut+r.Uint32N(2)
		case 6:
			h.Check = 3 + r.Uint32N(1<<20)
		case 7:
			h.Required |= 1 << (15 + r.IntN(17))
		case 8:
			*[]*uint32{&h.Classes, &h.Forward, &h.Backward}[r.IntN(3)] += 1 + r.Uint32N(1<<20)
		case 9:
			h.ForwardDeadMatch, h.ForwardDead = h.ForwardMatch+stride, h.ForwardMatch
		case 10:
			c := r.IntN(256)
			bad.Features[c] ^= 1 << r.IntN(16)
		case 11:
			if r.IntN(2) == 0 {
				bad.Words = bad.Words[:len(bad.Words)-1-r.IntN(100)]
			} else {
				bad.Kinds[r.IntN(256)] += uint8(1 + r.IntN(250))
			}
		}
		if !malformed {
			continue
		}
		refused++
		if bad.Validate() == nil {
			t.Fatalf("image %d is let through: %+v", refused, *h)
		}
	}
}

// TestValidateChangesNothing: what was looked at is what goes to the kernel.
func TestValidateChangesNothing(t *testing.T) {
	m, err := Compile(`\b[0-9a-f]{2}(?::[0-9a-f]{1,4})+|::\w`, NoCheck)
	if err != nil {
		t.Fatal(err)
	}
	image, err := NewImage([]*Machine{m})
	if err != nil {
		t.Fatal(err)
	}
	before := image.Bytes()
	if err := image.Validate(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, image.Bytes()) {
		t.Error("it is another image")
	}
}

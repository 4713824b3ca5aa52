// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"testing"
	"unsafe"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// sipHash is SipHash-2-4 written from its definition, one byte and one round at a time.
func sipHash(key [2]uint64, data []byte) uint64 {
	v := [4]uint64{
		key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573,
	}
	round := func(n int) {
		for range n {
			v[0] += v[1]
			v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
			v[0] = bits.RotateLeft64(v[0], 32)
			v[2] += v[3]
			v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
			v[0] += v[3]
			v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
			v[2] += v[1]
			v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
			v[2] = bits.RotateLeft64(v[2], 32)
		}
	}
	padded := append([]byte(nil), data...)
	for len(padded)%8 != 7 {
		padded = append(padded, 0)
	}
	padded = append(padded, byte(len(data)))
	for ; len(padded) > 0; padded = padded[8:] {
		m := binary.LittleEndian.Uint64(padded)
		v[3] ^= m
		round(2)
		v[0] ^= m
	}
	v[2] ^= 0xff
	round(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

// TestSipHashReference holds the reference against the vectors that its authors published (SipHash's vectors.h): the
// key 00 01 … 0f and the message 00 01 … of each length.
func TestSipHashReference(t *testing.T) {
	key := [2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	message := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5,
	} {
		if got := sipHash(key, message[:n]); got != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}

// key reads the session's key out of the kernel, as nothing but CAP_SYS_ADMIN can.
func (s *session) key(t *testing.T) (key [2]uint64) {
	t.Helper()
	section, err := s.open(t, configMap).LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.LoadUprobe()
	if err != nil {
		t.Fatal(err)
	}
	at := uintptr(spec.Variables[bpf.UprobeVarConfig].Offset) + unsafe.Offsetof(bpf.UprobeKhConfig{}.Key)
	for i := range key {
		key[i] = binary.LittleEndian.Uint64(section[at+8*uintptr(i):])
	}
	if key[0] == 0 || key[1] == 0 {
		t.Fatalf("the key is %x", key)
	}
	return key
}

func TestDigest(t *testing.T) {
	p := startHot(t)
	lengths := []int{100, 1000, 4095, 4096, 5000}
	for n := range 65 {
		lengths = append(lengths, n)
	}
	letters := []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz", 200))
	for _, function := range []string{"hot_pair", "hot_text"} {
		t.Run(function, func(t *testing.T) {
			r := request{function: function, redact: "digest", values: text(), limits: probe.Limits{ValueBytes: probe.MaxValueBytes}}
			if function == "hot_pair" {
				r.values = hot.Pair()[1:]
			}
			s := attach(t, p, r)
			key := s.key(t)
			for _, n := range lengths {
				p.Do(t, "size %d", n)
				events := s.events(t)
				if len(events) != 1 {
					t.Fatalf("%d events", len(events))
				}
				want := fmt.Sprintf("%016x", sipHash(key, letters[:min(n, probe.MaxValueBytes)]))
				if n > probe.MaxValueBytes {
					want += "…"
				}
				requireValues(t, events[0], []string{want})
			}
			s.requireScratchZero(t)
		})
	}
}

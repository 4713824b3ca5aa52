// SPDX-License-Identifier: Apache-2.0

package plantest

import "testing"

// TestSipHash compares with the vectors that SipHash's authors published (github.com/veorq/SipHash, vectors.h): the key is
// 00 01 ... 0f, the n-th input is 00 01 ... n-1.
func TestSipHash(t *testing.T) {
	key := [2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	want := map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 2: 0x0d6c8009d9a94f5a, 3: 0x85676696d7fb7e2d, 4: 0xcf2794e0277187b7,
		7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 9: 0x9e0082df0ba9e4b0, 15: 0xa129ca6149be45e5,
	}
	for n, hash := range want {
		input := make([]byte, n)
		for i := range input {
			input[i] = byte(i)
		}
		if got := SipHash(key, input); got != hash {
			t.Errorf("SipHash of %d bytes = %#016x; want %#016x", n, got, hash)
		}
	}
}

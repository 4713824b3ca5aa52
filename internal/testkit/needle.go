// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// A Needle finds a secret, or any eight bytes in a row of it, in other bytes: as it is, in hex, or in base64.
type Needle struct {
	windows map[uint64]int // eight bytes of the secret, by where in it they begin
	encoded map[uint64][]string
	prefix  [1 << 16]bool // the first two bytes of all of them
}

const window = 8

// NewNeedle makes a Needle of a secret of at least 16 bytes that nobody can have by chance.
func NewNeedle(secret []byte) *Needle {
	if len(secret) < 2*window {
		panic(fmt.Sprintf("testkit: a secret of %d bytes is found by chance", len(secret)))
	}
	n := &Needle{windows: make(map[uint64]int), encoded: make(map[uint64][]string)}
	for i := range len(secret) - window + 1 {
		n.windows[n.mark(secret[i:])] = i
		n.add(hex.EncodeToString(secret[i : i+window]))
		n.add(strings.ToUpper(hex.EncodeToString(secret[i : i+window])))
	}
	// Nine bytes that base64 cut at a boundary of its own are twelve characters.
	for i := range len(secret) - 9 + 1 {
		n.add(base64.StdEncoding.EncodeToString(secret[i : i+9]))
		n.add(base64.URLEncoding.EncodeToString(secret[i : i+9]))
	}
	return n
}

func (n *Needle) mark(b []byte) uint64 {
	n.prefix[binary.LittleEndian.Uint16(b)] = true
	return binary.LittleEndian.Uint64(b)
}

func (n *Needle) add(text string) {
	key := n.mark([]byte(text))
	n.encoded[key] = append(n.encoded[key], text)
}

// In returns how many places of the bytes hold a part of the secret, and where the first is (-1: none).
func (n *Needle) In(hay []byte) (count, first int) {
	first = -1
	for i := 0; i+window <= len(hay); i++ {
		if !n.prefix[uint16(hay[i])|uint16(hay[i+1])<<8] {
			continue
		}
		key := binary.LittleEndian.Uint64(hay[i:])
		_, found := n.windows[key]
		for _, text := range n.encoded[key] {
			found = found || len(hay)-i >= len(text) && string(hay[i:i+len(text)]) == text
		}
		if found {
			if count == 0 {
				first = i
			}
			count++
		}
	}
	return count, first
}

// InMemory returns the places of a process's memory that hold a part of the secret: every mapping that the process can read is
// searched. What the kernel lets nobody read in this way is left out: pages behind a file's end, and some of its own, such as
// those of a ring buffer.
func (n *Needle) InMemory(t testing.TB, pid int) []string {
	t.Helper()
	var places []string
	var searched int
	for _, m := range Mappings(t, pid) {
		if !strings.HasPrefix(m.Permissions, "r") || m.Path == "[vvar]" || m.Path == "[vvar_vclock]" || m.Path == "[vsyscall]" {
			continue
		}
		// In pieces, since Go reserves gigabytes; a piece begins where the last one's windows end.
		const piece = 16 << 20
		for at := m.Start; at < m.End; at += piece {
			size := min(m.End-at, piece+2*window)
			b, err := ReadMemory(pid, at, int(size))
			searched += len(b)
			if count, first := n.In(b); count > 0 {
				places = append(places, fmt.Sprintf("%d places from %#x on, in %s %s", count, at+uint64(first), m.Permissions, m.Path))
			}
			if err != nil {
				break // the file's end, or pages that nobody may read
			}
		}
	}
	if searched == 0 {
		t.Fatalf("nothing of process %d could be searched", pid)
	}
	return places
}

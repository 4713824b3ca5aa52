// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Needles finds secrets in other bytes, all of them in one pass.
type Needles struct {
	names []string
	marks map[uint64][]mark // by the first eight bytes
	first []uint64          // a bit for each three bytes with which a mark begins
}

// A mark is bytes by which a secret is known.
type mark struct {
	secret int // its index in names
	rest   string
}

const window = 8

// NewNeedles makes Needles that find nothing yet.
func NewNeedles() *Needles {
	return &Needles{marks: make(map[uint64][]mark), first: make([]uint64, 1<<24/64)}
}

// Add adds a secret of at least 16 bytes that nobody can have by chance. It is found by any eight bytes in a row, as they are, in hex, or
// in base64.
func (n *Needles) Add(name string, secret []byte) {
	if len(secret) < 2*window {
		panic(fmt.Sprintf("testkit: a secret of %d bytes is found by chance", len(secret)))
	}
	id := n.add(name)
	for i := range len(secret) - window + 1 {
		part := secret[i : i+window]
		n.mark(id, string(part))
		n.mark(id, hex.EncodeToString(part))
		n.mark(id, strings.ToUpper(hex.EncodeToString(part)))
	}
	// Nine bytes that base64 cut at a boundary of its own are twelve characters.
	for i := range len(secret) - 9 + 1 {
		n.mark(id, base64.StdEncoding.EncodeToString(secret[i:i+9]))
		n.mark(id, base64.URLEncoding.EncodeToString(secret[i:i+9]))
	}
}

// AddNumber adds a number of eight bytes, of which at least 40 bits are random. It is found by those bytes as they are in memory, and as
// protobuf and as text have it: the text, in hex, and each further one.
func (n *Needles) AddNumber(name string, number uint64, texts ...string) {
	id := n.add(name)
	n.mark(id, string(binary.LittleEndian.AppendUint64(nil, number)))
	if varint := binary.AppendUvarint(nil, number); len(varint) >= window {
		n.mark(id, string(varint))
	}
	for _, text := range append(texts, strconv.FormatUint(number, 10), strconv.FormatUint(number, 16)) {
		if len(text) > window {
			n.mark(id, text)
		}
	}
}

func (n *Needles) add(name string) int {
	n.names = append(n.names, name)
	return len(n.names) - 1
}

func (n *Needles) mark(id int, text string) {
	key := binary.LittleEndian.Uint64([]byte(text))
	n.marks[key] = append(n.marks[key], mark{id, text[window:]})
	begin := key & 0xffffff
	n.first[begin/64] |= 1 << (begin % 64)
}

// zeros is what most of the memory of a Go process holds.
var zeros [4096]byte

// In returns the names of the secrets of which a part is in the bytes, each with how many places hold one.
func (n *Needles) In(hay []byte) map[string]int {
	found := make(map[string]int)
	n.each(hay, func(name string, _ int) { found[name]++ })
	return found
}

// each calls a function for each place. It looks at every byte that processes have, which under the race detector takes minutes.
//
//go:norace
func (n *Needles) each(hay []byte, do func(name string, at int)) {
	for i := 0; i+window <= len(hay); i++ {
		begin := uint32(hay[i]) | uint32(hay[i+1])<<8 | uint32(hay[i+2])<<16
		if begin == 0 && i+len(zeros) <= len(hay) && bytes.Equal(hay[i:i+len(zeros)], zeros[:]) {
			i += len(zeros) - window // the last windows of it reach further
			continue
		}
		if n.first[begin/64]&(1<<(begin%64)) == 0 {
			continue
		}
		var last = -1
		for _, m := range n.marks[binary.LittleEndian.Uint64(hay[i:])] {
			if m.secret != last && strings.HasPrefix(string(hay[i+window:min(len(hay), i+window+len(m.rest))]), m.rest) {
				do(n.names[m.secret], i)
				last = m.secret
			}
		}
	}
}

// InMemory returns the names of the secrets of which a part is in a process's memory, with one place of each: every mapping that
// the process can read is searched. What the kernel lets nobody read in this way is left out: pages behind a file's end, and some of its
// own, such as those of a ring buffer.
func (n *Needles) InMemory(t testing.TB, pid int) map[string]string {
	t.Helper()
	found := make(map[string]string)
	var searched int
	buffer := make([]byte, piece+2*window)
	mem, pages := openProcess(t, pid, "mem"), openProcess(t, pid, "pagemap")
	defer mem.Close()
	defer pages.Close()
	for _, m := range Mappings(t, pid) {
		if !strings.HasPrefix(m.Permissions, "r") || m.Path == "[vvar]" || m.Path == "[vvar_vclock]" || m.Path == "[vsyscall]" {
			continue
		}
		// In pieces, since Go reserves gigabytes and the race detector terabytes; a piece begins where the last one's windows end.
		for at := m.Start; at < m.End; at += piece {
			b := buffer[:min(m.End-at, uint64(len(buffer)))]
			if m.Path == "" && untouched(t, pages, at, len(b)) {
				continue
			}
			got, err := mem.ReadAt(b, int64(at))
			searched += got
			n.each(b[:got], func(name string, i int) {
				found[name] = fmt.Sprintf("%#x, in %s %s", at+uint64(i), m.Permissions, m.Path)
			})
			if err != nil {
				break // the file's end, or pages that nobody may read
			}
		}
	}
	if searched == 0 {
		t.Fatalf("nothing of process %d could be searched", pid)
	}
	return found
}

// untouched says of anonymous memory that none of its pages were ever written to: there is nothing in memory or in swap space.
func untouched(t testing.TB, pages *os.File, at uint64, n int) bool {
	t.Helper()
	size := uint64(os.Getpagesize())
	first, last := at/size, (at+uint64(n)-1)/size
	entries := make([]byte, 8*(last-first+1))
	if _, err := pages.ReadAt(entries, int64(8*first)); err != nil {
		t.Fatal(err)
	}
	for ; len(entries) > 0; entries = entries[8:] {
		if entries[7]&0xc0 != 0 { // present, or swapped: Documentation/admin-guide/mm/pagemap.rst
			return false
		}
	}
	return true
}

// piece is how much of a mapping is read at once.
const piece = 4 << 20

// Names are those of all secrets, in order.
func (n *Needles) Names() []string { return slices.Clone(n.names) }

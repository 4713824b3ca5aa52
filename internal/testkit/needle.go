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
	files map[string]bool   // mapped files in which all were looked for
}

// A mark is bytes by which a secret is known.
type mark struct {
	secret int // its index in names
	rest   string
}

const window = 8

// NewNeedles makes Needles that find nothing yet.
func NewNeedles() *Needles {
	return &Needles{marks: make(map[uint64][]mark), first: make([]uint64, 1<<24/64), files: make(map[string]bool)}
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
// own, such as those of a ring buffer. Pages that are a file's are searched in the first process that has them.
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
		known := fmt.Sprint(m.Path, m.Permissions, m.End-m.Start, len(n.names))
		eachRun(t, pages, m, n.files[known], func(start, end uint64) {
			for at := start; at < end; at += piece { // a piece ends where the next one's windows may begin
				b := buffer[:min(end-at, uint64(len(buffer)))]
				got, err := mem.ReadAt(b, int64(at))
				searched += got
				n.each(b[:got], func(name string, i int) {
					found[name] = fmt.Sprintf("%#x, in %s %s", at+uint64(i), m.Permissions, m.Path)
				})
				if err != nil {
					return // the file's end, or pages that nobody may read
				}
			}
		})
		if strings.HasPrefix(m.Path, "/") {
			n.files[known] = true
		}
	}
	if searched == 0 {
		t.Fatalf("nothing of process %d could be searched", pid)
	}
	return found
}

// eachRun calls a function for each run of pages of a mapping that hold something: an anonymous page once it was written to, a
// file's always, or if the file is known only where the process has a page of its own instead.
func eachRun(t testing.TB, pages *os.File, m Mapping, fileIsKnown bool, do func(start, end uint64)) {
	t.Helper()
	size := uint64(os.Getpagesize())
	anonymous := m.Path == "" || strings.HasPrefix(m.Path, "[")
	start, in := uint64(0), false
	entries := make([]byte, 1<<16)
	for at := m.Start; at < m.End; {
		b := entries[:min(uint64(len(entries)), 8*((m.End-at)/size))]
		if _, err := pages.ReadAt(b, int64(8*(at/size))); err != nil {
			t.Fatal(err)
		}
		for ; len(b) > 0; b = b[8:] {
			// Documentation/admin-guide/mm/pagemap.rst: 63 present, 62 swapped, 61 a file's, or shared
			there, file := b[7]&0xc0 != 0, b[7]&0x20 != 0
			holds := there && (!fileIsKnown || !file)
			if !anonymous && !fileIsKnown {
				holds = true
			}
			if holds != in {
				if in {
					do(start, at)
				}
				start, in = at, holds
			}
			at += size
		}
	}
	if in {
		do(start, m.End)
	}
}

// piece is how much of a mapping is read at once.
const piece = 4 << 20

// Names are those of all secrets, in order.
func (n *Needles) Names() []string { return slices.Clone(n.names) }

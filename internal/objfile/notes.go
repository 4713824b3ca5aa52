// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
)

// Types of notes: elf(5) and src/cmd/internal/buildid of Go.
const (
	noteGNUBuildID = 3
	noteGoBuildID  = 4
)

// BuildID is the GNU build ID in hex, else Go's as its linker wrote it, else empty.
func (f *File) BuildID() string {
	var gnu, goID string
	for _, p := range f.elf.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNoteBytes || !within(p.Off, p.Filesz, f.size) {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := f.r.ReadAt(b, int64(p.Off)); err != nil {
			continue
		}
		eachNote(b, max(p.Align, 4), func(name string, kind uint32, desc []byte) {
			switch {
			case name == "GNU" && kind == noteGNUBuildID && gnu == "":
				gnu = hex.EncodeToString(desc)
			case name == "Go" && kind == noteGoBuildID && goID == "":
				goID = string(bytes.ToValidUTF8(desc, nil))
			}
		})
	}
	if gnu != "" {
		return gnu
	}
	return goID
}

// eachNote walks a note segment and stops at the first note that does not fit into it.
func eachNote(b []byte, align uint64, visit func(name string, kind uint32, desc []byte)) {
	if align != 4 && align != 8 {
		return
	}
	for len(b) >= 12 {
		nameLen, descLen := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		kind := binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		if nameLen > uint64(len(b)) {
			return
		}
		name := string(bytes.TrimRight(b[:nameLen], "\x00"))
		skip := (nameLen + 3) &^ 3
		// With an alignment of 8 it is the descriptor, counted from the note's start, that is aligned.
		if align == 8 {
			skip = (12+nameLen+7)&^7 - 12
		}
		if skip > uint64(len(b)) {
			return
		}
		b = b[skip:]
		if descLen > uint64(len(b)) {
			return
		}
		visit(name, kind, b[:descLen])
		b = b[min((descLen+align-1)&^(align-1), uint64(len(b))):]
	}
}

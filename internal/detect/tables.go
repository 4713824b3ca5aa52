// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/gob"
	"fmt"
	"io"
	"sync"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

//go:generate go run generate.go

// embedded are the tables of the built-in sets: it takes longer to make them than to attach a probe.
//
//go:embed tables.gob.gz
var embedded []byte

// tables are those of builtin, in its order, and the gate of its hints.
type tables struct {
	Machines []*dfa.Machine
	Gate     *dfa.Gate
}

var builtinTables = sync.OnceValues(func() (*tables, error) {
	t, err := readTables(embedded)
	if err != nil {
		return nil, fmt.Errorf("the tables of the built-in sets, which are in this executable: %w", err)
	}
	return t, nil
})

func readTables(data []byte) (*tables, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(z) // its checksum is at the end
	if err != nil {
		return nil, err
	}
	t := new(tables)
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(t); err != nil {
		return nil, err
	}
	if len(t.Machines) != len(builtin) || t.Gate == nil {
		return nil, fmt.Errorf("%d tables of %d sets", len(t.Machines), len(builtin))
	}
	for _, m := range t.Machines {
		m.Gate = t.Gate
	}
	return t, nil
}

// MakeTables makes the tables that are embedded, and proves that no match is without its set's hint.
func MakeTables() ([]byte, error) {
	t := new(tables)
	var hints []string
	for _, s := range sets {
		hints = append(hints, s.hint)
	}
	var err error
	if t.Gate, err = dfa.NewGate(hints); err != nil {
		return nil, err
	}
	for i, s := range builtin {
		m, err := dfa.CompileApart(s.pattern, s.apart, s.check)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
		if i < len(sets) {
			m.Hints = 1 << i
			if without, ok := t.Gate.Lets(m, m.Hints); !ok {
				return nil, fmt.Errorf("set %s: %q matches, and has not the hint %s", s.Name, without, s.hint)
			}
		}
		t.Machines = append(t.Machines, m)
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := gob.NewEncoder(z).Encode(t); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

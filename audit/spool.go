// SPDX-License-Identifier: Apache-2.0

// Package audit writes a node's own records: one append-only file in which each record is signed and holds the hash of the
// one before. The transparency log that they are handed over to is package audit/tlog.
package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/audit"
)

// A Spool is a node's records in a file, one a line. It is safe for concurrent use.
type Spool struct {
	node string
	key  ed25519.PrivateKey

	mu      sync.Mutex
	file    *os.File
	ack     *os.File
	end     int64   // of the file
	starts  []int64 // of the records in the file
	head    audit.Head
	acked   uint64
	broken  error // a write or a sync was refused: nobody knows what is on the disk
	open    map[string]bool
	endedBy map[string]string

	attaching map[string]grave // by session
	graves    []grave
}

// EndedBy is the name, among the details of a record `detached` or `refused`, of what ended the session.
const EndedBy = "endedBy"

// OpenSpool opens the spool at path, or makes it, for one process at a time. A last line that was never finished is cut off:
// whoever wrote it was never told that it is durable. Anything else that does not read back, or that does not follow the
// record before it or is not signed by key, is an error: the file was changed by somebody.
func OpenSpool(path string, key ed25519.PrivateKey, node string) (*Spool, error) {
	s := &Spool{node: node, key: key, open: make(map[string]bool), endedBy: make(map[string]string), attaching: make(map[string]grave)}
	if err := s.openFiles(path); err != nil {
		s.Close()
		return nil, fmt.Errorf("open audit spool: %w", err)
	}
	if err := s.replay(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open audit spool %s: %w", path, err)
	}
	return s, nil
}

func (s *Spool) openFiles(path string) error {
	var err error
	if s.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another agent: %w", path, err)
	}
	if s.ack, err = os.OpenFile(path+".ack", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	// A file that was just made is only in its directory for good once the directory is synced.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// replay reads what is there and leaves the file ending with its last whole record.
func (s *Spool) replay() error {
	public, ok := s.key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("no key")
	}
	r := bufio.NewReader(s.file)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(line) > 0 {
				if err := s.file.Truncate(s.end); err != nil {
					return err
				}
			}
			break
		}
		if err != nil {
			return err
		}
		record, head, err := s.head.Follow(bytes.TrimSuffix(line, []byte{'\n'}), public, s.node)
		if err != nil {
			return fmt.Errorf("after record %d: %w; move the file away to begin a new one", s.head.Sequence, err)
		}
		if s.head.Sequence == 0 && head.Sequence != 1 {
			return fmt.Errorf("it begins with record %d; move the file away to begin a new one", head.Sequence)
		}
		s.note(record, head, int64(len(line)))
	}
	var word [8]byte
	switch n, err := s.ack.ReadAt(word[:], 0); {
	case n == len(word):
		s.acked = min(binary.BigEndian.Uint64(word[:]), s.head.Sequence)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// note takes a record that is in the file into account.
func (s *Spool) note(r *audit.Record, head audit.Head, size int64) {
	s.starts = append(s.starts, s.end)
	s.end += size
	s.head = head
	s.bury(r)
	switch r.Kind {
	case audit.AboutToAttach:
		s.open[r.SessionID] = true
	case audit.Detached:
		delete(s.open, r.SessionID)
		s.endedBy[r.SessionID] = r.Details[EndedBy]
	case audit.Refused:
		if _, open := s.open[r.SessionID]; !open && r.Details[EndedBy] != "" {
			s.endedBy[r.SessionID] = r.Details[EndedBy]
		}
	}
}

// Append makes a record durable and returns its number. After an error the spool takes no more: what is on the disk is not
// known, and what cannot be put on record must not happen.
func (s *Spool) Append(r audit.Record) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return 0, fmt.Errorf("append audit record: %w", s.broken)
	}
	r.Node = s.node
	data, head, err := s.head.Extend(r, s.key)
	if err != nil {
		return 0, err
	}
	line := append(data, '\n')
	if _, err := s.file.WriteAt(line, s.end); err != nil {
		s.broken = err
		return 0, fmt.Errorf("append audit record: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		s.broken = err
		return 0, fmt.Errorf("append audit record: %w", err)
	}
	s.note(&r, head, int64(len(line)))
	return head.Sequence, nil
}

// Pending returns records that were not acknowledged, from the first with a number above after, at most limit of them, and
// the number of the last of these.
func (s *Spool) Pending(after uint64, limit int) (records [][]byte, last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := max(after, s.acked) + 1; n <= s.head.Sequence && len(records) < limit; n++ {
		start, end := s.starts[n-1], s.end
		if n < s.head.Sequence {
			end = s.starts[n]
		}
		record := make([]byte, end-start-1)
		if _, err := s.file.ReadAt(record, start); err != nil {
			return nil, 0, fmt.Errorf("read audit spool: %w", err)
		}
		records, last = append(records, record), n
	}
	return records, last, nil
}

// Acknowledge says that all records up to a number are durable elsewhere. They stay in the file. The number is not synced:
// a record that is handed over twice is taken once.
func (s *Spool) Acknowledge(upTo uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if upTo > s.head.Sequence {
		return fmt.Errorf("acknowledge audit records: there are %d, not %d", s.head.Sequence, upTo)
	}
	if upTo <= s.acked {
		return nil
	}
	if _, err := s.ack.WriteAt(binary.BigEndian.AppendUint64(nil, upTo), 0); err != nil {
		return fmt.Errorf("acknowledge audit records: %w", err)
	}
	s.acked = upTo
	return nil
}

// Open returns the sessions that are on record as about to attach and not as detached, sorted.
func (s *Spool) Open() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}

// Finished returns the sessions that are on record as over, and what ended each.
func (s *Spool) Finished() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.endedBy)
}

// Close closes the spool's files.
func (s *Spool) Close() error {
	var errs []error
	for _, f := range []*os.File{s.file, s.ack} {
		if f != nil {
			if err := f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

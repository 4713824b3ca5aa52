// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func openSpool(t *testing.T, path string) *Spool {
	t.Helper()
	s, err := OpenSpool(path, key, "n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func appendTo(t *testing.T, s *Spool, kind audit.Kind, session string) uint64 {
	t.Helper()
	n, err := s.Append(audit.Record{Kind: kind, Time: time.Unix(1, 0), SessionID: session, Details: map[string]string{EndedBy: "deadline"}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSpoolKeepsItsRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s := openSpool(t, path)
	for i := range 5 {
		if n := appendTo(t, s, audit.AboutToAttach, fmt.Sprintf("s-%d", i)); n != uint64(i+1) {
			t.Errorf("record %d got number %d", i+1, n)
		}
	}
	appendTo(t, s, audit.Detached, "s-1")
	if err := s.Acknowledge(2); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openSpool(t, path)
	if got, want := s.Open(), []string{"s-0", "s-2", "s-3", "s-4"}; !slices.Equal(got, want) {
		t.Errorf("open sessions %v, want %v", got, want)
	}
	if got := s.Finished(); len(got) != 1 || got["s-1"] != "deadline" {
		t.Errorf("finished sessions %v", got)
	}
	records, last, err := s.Pending(0, 3)
	if err != nil || len(records) != 3 || last != 5 {
		t.Fatalf("pending: %d records up to %d, %v; want 3 up to 5", len(records), last, err)
	}
	head := audit.Head{}
	for _, data := range records {
		if _, head, err = head.Follow(data, key.Public().(ed25519.PublicKey), "n1"); err != nil {
			t.Fatal(err)
		}
	}
	if rest, last, err := s.Pending(5, 64); err != nil || len(rest) != 1 || last != 6 {
		t.Errorf("pending after 5: %d records up to %d, %v", len(rest), last, err)
	}
	if none, _, err := s.Pending(6, 64); err != nil || len(none) != 0 {
		t.Errorf("pending after the last: %d records, %v", len(none), err)
	}
	if err := s.Acknowledge(7); err == nil {
		t.Error("a record that does not exist is acknowledged")
	}
}

func TestSpoolCutsOffAnUnfinishedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s := openSpool(t, path)
	appendTo(t, s, audit.AboutToAttach, "s-1")
	whole := s.end
	appendTo(t, s, audit.Attached, "s-1")
	s.Close()
	for size := whole; size < s.end; size += 7 {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		again := openSpool(t, path)
		if n := appendTo(t, again, audit.Attached, "s-1"); n != 2 {
			t.Fatalf("cut to %d bytes: the next record has number %d", size, n)
		}
		again.Close()
	}
}

func TestSpoolThatWasChangedIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spool")
	s := openSpool(t, path)
	for i := range 3 {
		appendTo(t, s, audit.AboutToAttach, fmt.Sprintf("s-%d", i))
	}
	starts := slices.Clone(s.starts)
	s.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string][]byte{
		"first taken out":   data[starts[1]:],
		"middle taken out":  slices.Concat(data[:starts[1]], data[starts[2]:]),
		"two changed about": slices.Concat(data[:starts[1]], data[starts[2]:], data[starts[1]:starts[2]]),
		"empty line":        slices.Concat(data[:starts[1]], []byte("\n"), data[starts[1]:]),
	}
	for i := 0; i < len(data); i += 11 {
		flipped := slices.Clone(data)
		flipped[i] ^= 1
		changed[fmt.Sprintf("bit flipped in byte %d", i)] = flipped
	}
	for name, content := range changed {
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSpool(bad, key, "n1")
		switch {
		case err != nil:
		case s.end < int64(len(content)):
			s.Close() // the last newline was hit: an unfinished line
		default:
			s.Close()
			t.Errorf("%s: it is taken as it is", name)
		}
	}
	if _, err := OpenSpool(path, ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize)), "n1"); err == nil {
		t.Error("another key's spool is taken")
	}
	if _, err := OpenSpool(path, key, "n2"); err == nil {
		t.Error("another node's spool is taken")
	}
}

func TestSpoolIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	openSpool(t, path)
	if _, err := OpenSpool(path, key, "n1"); err == nil {
		t.Error("two agents write one spool")
	}
}

func TestSpoolThatCannotWriteTakesNoMore(t *testing.T) {
	s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
	appendTo(t, s, audit.AboutToAttach, "s-1")
	readOnly, err := os.Open(s.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	writable := s.file
	s.file = readOnly
	if _, err := s.Append(audit.Record{Kind: audit.Attached, SessionID: "s-1"}); err == nil {
		t.Fatal("a record that was not written is durable")
	}
	s.file = writable
	readOnly.Close()
	if _, err := s.Append(audit.Record{Kind: audit.Attached, SessionID: "s-1"}); err == nil {
		t.Error("the spool goes on after a write that failed")
	}
}

// TestTombstones has agents die before and behind their attach, and one end its session in order.
func TestTombstones(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s := openSpool(t, path)
	write := func(kind audit.Kind, session string, details map[string]string) {
		t.Helper()
		if _, err := s.Append(audit.Record{Kind: kind, Time: time.Unix(100, 0), SessionID: session, Details: details}); err != nil {
			t.Fatal(err)
		}
	}
	about := func(session, function string) {
		write(audit.AboutToAttach, session, map[string]string{Function: function, Executable: "/bin/x"})
	}
	died := map[string]string{DiedWhile: Attaching}
	about("s-1", "deadly")
	if !s.IsAttaching("s-1") || s.IsAttaching("s-2") {
		t.Error("who is attaching is not known")
	}
	write(audit.Detached, "s-1", died)
	about("s-2", "attached")
	write(audit.Attached, "s-2", nil)
	write(audit.Detached, "s-2", died)
	about("s-3", "refused")
	write(audit.Detached, "s-3", nil)
	for range 2 { // as it is, and as it reads back
		for function, want := range map[string]bool{"deadly": true, "attached": false, "refused": false, "other": false} {
			if found, got := s.DiedAttaching(function, "/bin/x"); got != want || got && !found.Equal(time.Unix(100, 0)) {
				t.Errorf("%s: %v at %v", function, got, found)
			}
		}
		if _, got := s.DiedAttaching("deadly", "/bin/y"); got {
			t.Error("another executable has the tombstone")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openSpool(t, path)
	}
	for i := range maxTombstones + 10 {
		about("many", fmt.Sprint(i))
		write(audit.Detached, "many", died)
	}
	if len(s.graves) != maxTombstones {
		t.Errorf("%d tombstones", len(s.graves))
	}
}

// SPDX-License-Identifier: Apache-2.0

package tlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func open(t *testing.T, dir string) (*Log, Key) {
	t.Helper()
	key, err := LoadKey(filepath.Join(dir, "log.key"), "keyhole.dev/log/test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(filepath.Join(dir, "log"), key)
	if err != nil {
		t.Fatal(err)
	}
	return l, key
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func record(kind audit.Kind, session string) *audit.Record {
	return &audit.Record{Kind: kind, Time: time.Unix(1, 0), SessionID: session}
}

func TestProofs(t *testing.T) {
	dir := t.TempDir()
	l, key := open(t, dir)
	verifier, err := note.NewVerifier(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	check := func(p *Proof) {
		t.Helper()
		c, _, _, err := log.ParseCheckpoint(p.Checkpoint, verifier.Name(), verifier)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(p.Record), p.Hashes, c.Hash); err != nil {
			t.Errorf("record %d: %v", p.Index, err)
		}
	}
	for i := range 3 {
		p, err := l.AppendProved(t.Context(), record(audit.Granted, fmt.Sprintf("s-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if p.Index != uint64(i) {
			t.Errorf("record %d got index %d", i, p.Index)
		}
		check(p)
	}
	closeLog(t, l)

	l, _ = open(t, dir)
	defer closeLog(t, l)
	p, err := l.Prove(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	check(p)
	if r, err := audit.Parse(p.Record); err != nil || r.SessionID != "s-1" {
		t.Errorf("record 1 is %s (%v)", p.Record, err)
	}
	if _, err := l.Prove(t.Context(), 3); !errors.Is(err, ErrNoRecord) {
		t.Errorf("a record that does not exist: %v", err)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	l, key := open(t, dir)
	const records = 300 // more than one bundle of 256
	for i := range records {
		session := fmt.Sprintf("s-%d", i/2)
		kind := []audit.Kind{audit.Requested, audit.Granted}[i%2]
		if _, err := l.Append(t.Context(), record(kind, session)); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	logDir := filepath.Join(dir, "log")
	report, err := Verify(t.Context(), logDir, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if report.Records != records || report.Open != 0 || len(report.Findings) != 0 {
		t.Errorf("got %+v", report)
	}

	other, err := LoadKey(filepath.Join(t.TempDir(), "k"), "keyhole.dev/log/test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), logDir, other.Public()); !errors.Is(err, ErrTampered) {
		t.Errorf("with another key: %v", err)
	}

	// All files that a log of 300 records is read from; the others in its directory are of earlier, smaller trees.
	for _, name := range []string{
		"checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44",
	} {
		path := filepath.Join(logDir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(whole) / 2, len(whole) - 1} {
			flipped := slices.Clone(whole)
			flipped[at] ^= 4
			rewrite(t, path, flipped)
			if _, err := Verify(t.Context(), logDir, key.Public()); err == nil {
				t.Errorf("%s: a flipped byte at %d of %d is not noticed", name, at, len(whole))
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(t.Context(), logDir, key.Public()); err == nil {
			t.Errorf("%s: it is not missed", name)
		}
		rewrite(t, path, whole)
	}
	if _, err := Verify(t.Context(), logDir, key.Public()); err != nil {
		t.Errorf("after all was put back: %v", err)
	}
}

func rewrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyRecords(t *testing.T) {
	dir := t.TempDir()
	l, key := open(t, dir)
	var all [][]byte
	for i := range 7 {
		p, err := l.AppendProved(t.Context(), record(audit.Requested, fmt.Sprintf("s-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Record)
	}
	checkpoint, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	verify := func(records [][]byte) error {
		_, err := VerifyRecords(checkpoint, key.Public(), func(yield func([]byte, error) bool) {
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
		})
		return err
	}
	if err := verify(all); err != nil {
		t.Fatal(err)
	}
	if err := verify(append(slices.Clone(all), []byte("later"))); err != nil {
		t.Errorf("a log that grew: %v", err)
	}
	for name, records := range map[string][][]byte{
		"truncated": all[:6], "none": nil, "one changed": append([][]byte{[]byte("x")}, all[1:]...),
		"one left out": append(slices.Clone(all[:2]), all[3:]...),
	} {
		if err := verify(records); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	l, _ := open(t, t.TempDir())
	defer closeLog(t, l)
	if _, err := l.AppendProved(t.Context(), record(audit.Granted, "s-1")); err != nil {
		t.Fatal(err)
	}
	if err := l.clockStepped(); err != nil {
		t.Errorf("the clock is right: %v", err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(l.dir, "checkpoint"), later, later); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := l.AppendProved(ctx, record(audit.Granted, "s-2")); err == nil || !strings.Contains(err.Error(), "set back") {
		t.Errorf("a checkpoint from the future: %v", err)
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Join(l.dir, "checkpoint"), now, now); err != nil {
		t.Fatal(err)
	}
}

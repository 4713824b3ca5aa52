// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	before, changes, err := s.Follow(ctx, "sessions/")
	if err != nil || len(before) != 0 {
		t.Fatal(before, err)
	}
	first, err := s.Write(ctx, 0, Value{Key: "sessions/a", Data: []byte("1")}, Value{Key: "requests/r", Data: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(ctx, 0, Value{Key: "sessions/b"}, Value{Key: "requests/r"}); !errors.Is(err, ErrConflict) {
		t.Errorf("a key that exists is made: %v", err)
	}
	if _, err := s.Read(ctx, "sessions/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("half of a transaction took place: %v", err)
	}
	second, err := s.Write(ctx, 0, Value{Key: "sessions/a", Data: []byte("2"), Revision: first})
	if err != nil || second <= first {
		t.Fatal(second, err)
	}
	if _, err := s.Write(ctx, 0, Value{Key: "sessions/a", Revision: first}); !errors.Is(err, ErrConflict) {
		t.Errorf("an older revision wins: %v", err)
	}
	for i, want := range []string{"1", "2"} {
		select {
		case v := <-changes:
			if v.Key != "sessions/a" || string(v.Data) != want {
				t.Errorf("change %d: %+v", i, v)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no change is seen")
		}
	}
	cancel()
	for range changes {
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	v, err := s.Read(t.Context(), "sessions/a")
	if err != nil || string(v.Data) != "2" || v.Revision != second {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestLease(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	revision, err := s.Write(t.Context(), time.Second, Value{Key: "sessions/a", Data: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), 0, Value{Key: "sessions/a", Data: []byte("2"), Revision: revision}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := s.Read(t.Context(), "sessions/a"); errors.Is(err, ErrNotFound) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a key outlives its lease")
		}
	}
}

func TestLongPath(t *testing.T) {
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "shorter directory") {
		t.Errorf("got %v", err)
	}
}

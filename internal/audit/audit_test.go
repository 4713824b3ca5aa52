// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

var (
	key    = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public = key.Public().(ed25519.PublicKey)
)

func record(kind Kind, session string) Record {
	return Record{
		Kind: kind, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), SessionID: session, Node: "n1",
		Actor: "spiffe://keyhole.dev/user/<dev>", Details: map[string]string{"reason": "a & b", "plan": "sha256:1"},
	}
}

func TestRecordHasOneForm(t *testing.T) {
	r := record(Granted, "s-1")
	data, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Time.Equal(r.Time) || got.Details["reason"] != "a & b" || got.Actor != r.Actor {
		t.Errorf("got %+v, want %+v", got, r)
	}
	for name, other := range map[string]string{
		"space":         strings.Replace(string(data), ",", ", ", 1),
		"other order":   `{"time":"2026-01-02T02:04:05.000000006Z","kind":"granted"}`,
		"unknown field": `{"kind":"granted","time":"2026-01-02T02:04:05Z","extra":1}`,
		"twice":         string(data) + string(data),
		"other zone":    `{"kind":"granted","time":"2026-01-02T03:04:05+01:00"}`,
		"same key":      `{"kind":"granted","kind":"granted","time":"2026-01-02T02:04:05Z"}`,
		"no kind":       `{"kind":"","time":"2026-01-02T02:04:05Z"}`,
		"nothing":       ``,
	} {
		if _, err := Parse([]byte(other)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	r.Actor, r.Details["comm"] = "\xff", "a\xc3" // a name that was cut, or that a process gave itself
	if data, err = r.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, err = Parse(data); err != nil || got.Details["comm"] != "a\uFFFD" {
		t.Errorf("text that is not UTF-8: %+v, %v", got, err)
	}
	r.Details["long"] = strings.Repeat("x", MaxRecord)
	if _, err := r.Marshal(); err == nil {
		t.Error("a record beyond the bound is written")
	}
}

func TestChain(t *testing.T) {
	var records [][]byte
	head := Head{}
	for _, kind := range []Kind{AboutToAttach, Attached, Detached} {
		var data []byte
		var err error
		if data, head, err = head.Extend(record(kind, "s-1"), key); err != nil {
			t.Fatal(err)
		}
		records = append(records, data)
	}
	at := Head{}
	for _, data := range records {
		var err error
		if _, at, err = at.Follow(data, public, "n1"); err != nil {
			t.Fatal(err)
		}
	}
	if at.Sequence != 3 || !bytes.Equal(at.Hash, head.Hash) {
		t.Errorf("ends at %+v, want %+v", at, head)
	}
	one, first, err := Head{}.Follow(records[0], public, "n1")
	if err != nil || one.Kind != AboutToAttach {
		t.Fatal(one, err)
	}
	for name, test := range map[string]struct {
		data []byte
		key  ed25519.PublicKey
		node string
	}{
		"a record left out":   {records[2], public, "n1"},
		"the same again":      {records[0], public, "n1"},
		"another node":        {records[1], public, "n2"},
		"another key":         {records[1], ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)).Public().(ed25519.PublicKey), "n1"},
		"no key":              {records[1], nil, "n1"},
		"another text":        {bytes.Replace(records[1], []byte("sha256:1"), []byte("sha256:2"), 1), public, "n1"},
		"no signature at all": {unsigned(t, first), public, "n1"},
	} {
		if _, _, err := first.Follow(test.data, test.key, test.node); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func unsigned(t *testing.T, h Head) []byte {
	r := record(Attached, "s-1")
	r.Chain = &Link{Sequence: h.Sequence + 1, Previous: h.Hash}
	data, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A writer writes a log as a control plane and one node would.
type writer struct {
	t     *testing.T
	story Story
	head  Head
	index uint64
}

func (w *writer) add(data []byte) {
	w.story.Add(w.index, data)
	w.index++
}

func (w *writer) plain(r Record) {
	w.t.Helper()
	data, err := r.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(data)
}

func (w *writer) key(key ed25519.PublicKey) {
	w.t.Helper()
	w.plain(Record{Kind: Credential, Node: "n1", Details: map[string]string{AuditKey: hex.EncodeToString(key)}})
}

// chained returns the node's next record.
func (w *writer) chained(kind Kind) []byte {
	w.t.Helper()
	data, head, err := w.head.Extend(record(kind, "s-1"), key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.head = head
	return data
}

func (w *writer) check(name, wrong string) {
	w.t.Helper()
	findings := strings.Join(w.story.Findings(), "; ")
	if (findings == "") != (wrong == "") || !strings.Contains(findings, wrong) {
		w.t.Errorf("%s: found %q, want %q", name, findings, wrong)
	}
}

func TestStory(t *testing.T) {
	for _, test := range []struct {
		name  string
		kinds []Kind
		wrong string // in the only finding; empty: sound
		open  int
	}{
		{"whole", []Kind{Requested, Granted, AboutToAttach, Attached, Detached}, "", 0},
		{"running", []Kind{Requested, Granted, AboutToAttach, Attached}, "", 1},
		{"refused by the node", []Kind{Requested, Granted, Refused}, "", 0},
		{"attach failed", []Kind{Requested, Granted, AboutToAttach, Detached}, "", 0},
		{"no grant", []Kind{Requested, AboutToAttach, Detached}, "without a grant", 0},
		{"no record before", []Kind{Requested, Granted, Attached}, "without a record before", 0},
		{"twice", []Kind{Granted, AboutToAttach, Detached, Detached}, "detached twice", 0},
		{"granted twice", []Kind{Granted, Granted}, "granted twice", 0},
	} {
		w := &writer{t: t}
		w.key(public)
		for _, kind := range test.kinds {
			if ofNodes[kind] || kind == Refused {
				w.add(w.chained(kind))
			} else {
				w.plain(record(kind, "s-1"))
			}
		}
		w.check(test.name, test.wrong)
		if n := w.story.Open(); n != test.open {
			t.Errorf("%s: %d open", test.name, n)
		}
	}
	w := &writer{t: t}
	w.add([]byte("not a record"))
	if len(w.story.Findings()) != 1 || w.story.Records() != 1 {
		t.Errorf("a leaf that is no record: %v", w.story.Findings())
	}
}

// TestStoryOfNodes: whoever can write to the log cannot speak for a node.
func TestStoryOfNodes(t *testing.T) {
	granted := func(t *testing.T) *writer {
		w := &writer{t: t}
		w.key(public)
		w.plain(record(Granted, "s-1"))
		return w
	}
	w := granted(t)
	first, second := w.chained(AboutToAttach), w.chained(Detached)
	for _, data := range [][]byte{first, first, second, first, second} {
		w.add(data)
	}
	w.check("handed over again", "")

	w = granted(t)
	w.plain(record(AboutToAttach, "s-1"))
	w.check("said by the control plane", "no node says so")

	w = granted(t)
	w.add(w.chained(Refused))
	w.chained(AboutToAttach)
	w.add(w.chained(Detached))
	w.check("a record left out", "record 3 comes after 1")

	w = granted(t)
	w.key(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)).Public().(ed25519.PublicKey))
	w.add(w.chained(Refused))
	w.check("another key", "not signed")

	w = &writer{t: t}
	w.add(w.chained(Refused))
	w.check("no key", "no key on record")

	w = granted(t)
	w.add(w.chained(Refused))
	w.key(public)
	w.head = Head{}
	w.add(w.chained(Refused))
	w.check("a new beginning", "")

	w = &writer{t: t}
	w.key(public)
	others := record(Granted, "s-1")
	others.Node = "n2"
	w.plain(others)
	w.add(w.chained(AboutToAttach))
	w.check("said of another node's session", "node n1 says about_to_attach of session s-1, which is node n2's")
	if w.story.Open() != 0 {
		t.Error("what another node says of a session changes it")
	}

	w = &writer{t: t}
	w.key(nil)
	w.check("a key that is none", "cannot be read")
}

func FuzzParse(f *testing.F) {
	r := record(Granted, "s-1")
	data, err := r.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	chained, _, err := Head{}.Extend(r, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(chained)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q is taken, and written as %q (%v)", data, again, err)
		}
	})
}

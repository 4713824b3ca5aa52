// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/plan/plantest"
	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// pieces of texts: secrets of each set, and what looks a little like them.
var pieces = []string{
	"4111 1111 1111 1111", "4111111111111112", "378282246310005", "ana@example.org", "a@b", "müller@bücher.example", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
	"Authorization: Bearer abcdef0123456789", "AKIAIOSFODNN7EXAMPLE", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "DE89370400440532013000", "DE88370400440532013000", "123-45-6789",
	"+49 30 901820", "(212) 555-0173", "192.0.2.1", "999.1.1.1", "2001:db8::1", "postgres://u:p@db/x", "password=hunter2;", "sid=0123456789abcdef; ", "order 17 of 2026-11-23", "caf\u00e9 \u20ac5", "\xff\xfe",
	"\xe2\x82", " ", ", ", "x", "_", "0", "\n", "{\"name\":\"Jo\"}", "id=7f3c9a2e-5d1b-4c8e-9f60-2b7a1c3d4e5f", "GET /items?limit=10 HTTP/1.1",
}

// TestKernelOverwrites: what leaves of random texts is what the plain machines leave, whole and cut, for one set and for all.
func TestKernelOverwrites(t *testing.T) {
	p := startHot(t)
	r := rand.New(rand.NewPCG(1, 2))
	const most = 200
	for _, sets := range []string{"all", "card", "email,phone"} {
		machines, err := new(detect.Library).Machines(sets)
		if err != nil {
			t.Fatal(err)
		}
		s := attach(t, p, request{
			function: "hot_image", values: hot.Pair()[1:], redact: "detect:" + sets, limits: probe.Limits{ValueBytes: most},
		})
		found := 0
		for range 150 {
			var text []byte
			for range r.IntN(12) {
				text = append(text, pieces[r.IntN(len(pieces))]...)
			}
			record := capture(t, p, s, text)
			want := dfa.Overwrite(text[:min(len(text), most)], len(text) > most, machines...)
			got := record[plan.RecordHeaderBytes+plan.ValueHeaderBytes:][:len(want)]
			if !bytes.Equal(got, want) {
				t.Fatalf("%s in %q:\nthe kernel leaves  %q\nthe machines leave %q", sets, text, got, want)
			}
			found += strings.Count(string(got), "*")
		}
		s.requireScratchZero(t)
		t.Logf("%s: %d bytes overwritten", sets, found)
		if found == 0 {
			t.Errorf("%s: nothing was found in any text", sets)
		}
	}
}

// capture makes the process call with a text, and returns the record.
func capture(t *testing.T, p *hot.Process, s *session, text []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page")
	page := make([]byte, 2*os.Getpagesize())
	copy(page, text)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "image %s 0 %#x %d 0 0 0", path, plantest.Regions[0], len(text))
	records := s.records(t)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	return records[0]
}

// TestKernelAllows: a value leaves if all of it is what a set finds, and was read to its end; else nothing of it, its length included.
func TestKernelAllows(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{
		function: "hot_image", values: hot.Pair()[1:], redact: "allow:card,email,ipv4", limits: probe.Limits{ValueBytes: 40},
	})
	for text, allowed := range map[string]bool{
		"192.0.2.1": true, "192.0.2.1 ": false, " 192.0.2.1": false, "": false, "ana@example.org": true, "ana@example.org, bo@example.org": false,
		"4111111111111111": true, "4111111111111112": false, "m\u00fcller@b\u00fccher.example": true, "\xff": false, "ana@example.org\xff": true, "192.0.2.1\xff": false,
		strings.Repeat("a", 24) + "@b.example.org.": false, strings.Repeat("a", 26) + "@b.example.org": true, strings.Repeat("a", 27) + "@b.example.org": false,
	} {
		record := capture(t, p, s, []byte(text))
		value := record[plan.RecordHeaderBytes:]
		want := []byte{plan.ReasonNotAllowed, 7: 0}
		if n := byte(len(text)); allowed {
			want = slices.Concat([]byte{plan.ReasonOK, 0, n, 0, n, 7: 0}, []byte(text), make([]byte, plan.Padded(len(text))-len(text)))
		}
		if !bytes.Equal(value, want) {
			t.Errorf("%q: the record has %q; want %q", text, value, want)
		}
	}
	s.requireScratchZero(t)
}

// TestImageIsTheKernels: internal/dfa lays machines out as bpf/types.h has them.
func TestImageIsTheKernels(t *testing.T) {
	image, err := dfa.NewImage(nil)
	if err != nil {
		t.Fatal(err)
	}
	type tables = bpf.UprobeKhTables
	if got, want := binary.Size(dfa.Header{}), int(unsafe.Sizeof(bpf.UprobeKhMachine{})); got != want {
		t.Errorf("a machine has %d bytes; in the kernel %d", got, want)
	}
	if got, want := len(image.Bytes())-2*len(image.Words), int(unsafe.Offsetof(tables{}.Words)); got != want {
		t.Errorf("the words begin at byte %d; in the kernel at %d", got, want)
	}
	image.Machines = []dfa.Header{{
		Classes: 1, Forward: 2, Backward: 3, Flags: 4, Required: 5, Hints: 17, Check: 6, Start: [4]uint32{7, 8, 9, 10},
		ForwardDeadMatch: 11, ForwardDead: 12, ForwardMatch: 13, BackwardStart: 14, BackwardCut: 15, BackwardMatch: 16,
	}}
	var machine bpf.UprobeKhMachine
	if _, err := binary.Decode(image.Bytes(), binary.NativeEndian, &machine); err != nil {
		t.Fatal(err)
	}
	if machine != (bpf.UprobeKhMachine{
		Classes: 1, Forward: 2, Backward: 3, Flags: 4, Required: 5, Hints: 17, Check: 6, Start: [4]uint32{7, 8, 9, 10},
		ForwardDeadMatch: 11, ForwardDead: 12, ForwardMatch: 13, BackwardStart: 14, BackwardCut: 15, BackwardMatch: 16,
	}) {
		t.Errorf("the kernel reads %+v", machine)
	}
}

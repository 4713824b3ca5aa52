// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestManifest: it names each object that is shipped, and no other, with the digest that it has.
func TestManifest(t *testing.T) {
	if n := strings.Count(manifest, "\n"); n != len(objects) {
		t.Errorf("the manifest has %d lines; want one for each of %d objects", n, len(objects))
	}
	for file := range objects {
		object, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkReleased(file, object); err != nil {
			t.Errorf("%v; make generate writes the manifest", err)
		}
	}
}

// TestOneByte changes one byte of an object, each in turn of some hundred places, and wants it refused before anything reads it.
func TestOneByte(t *testing.T) {
	if spec, err := Uprobe(); err != nil || spec.Programs[UprobeProgKhUprobe] == nil {
		t.Fatalf("as it is: %v", err)
	}
	if spec, err := Kprobe(); err != nil || spec.Programs[KprobeProgKhKprobe] == nil {
		t.Fatalf("as it is: %v", err)
	}
	for at := 0; at < len(_UprobeBytes); at += 211 {
		changed := slices.Clone(_UprobeBytes)
		changed[at] ^= 1
		if _, err := released("uprobe", changed); err == nil || !strings.Contains(err.Error(), "is not the release's") {
			t.Fatalf("with byte %d changed: %v", at, err)
		}
	}
	for name, object := range map[string][]byte{"uprobe": _KprobeBytes, "kprobe": _UprobeBytes, "uretprobe": _UprobeBytes, "": nil} {
		if _, err := released(name, bytes.Clone(object)); err == nil {
			t.Errorf("another's bytes are taken for those of %q", name)
		}
	}
}

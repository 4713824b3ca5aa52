// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the manifest
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
)

// manifest is the release's: a line for each object, its SHA-256 in hex and its file, as sha256sum writes and checks them.
//
//go:embed manifest.txt
var manifest string

// UprobeDigest names the object that Uprobe returns: "sha256:" and the SHA-256 of its bytes in hex.
func UprobeDigest() string { return digest(_UprobeBytes) }

// KprobeDigest names the object that Kprobe returns, likewise.
func KprobeDigest() string { return digest(_KprobeBytes) }

// Uprobe is the object for processes, if it is the one that the release's manifest names and a first look finds nothing against it: Lint
// takes a second, and has proved the rest of these very bytes before they were released.
func Uprobe() (*ebpf.CollectionSpec, error) { return looked("uprobe", _UprobeBytes, false) }

// Kprobe is the object for the kernel, likewise.
func Kprobe() (*ebpf.CollectionSpec, error) { return looked("kprobe", _KprobeBytes, true) }

func looked(name string, object []byte, kernel bool) (*ebpf.CollectionSpec, error) {
	spec, err := released(name, object)
	if err != nil {
		return nil, err
	}
	return spec, look(spec, kernel)
}

// released reads an object that is the one of its name for this architecture in the manifest.
func released(name string, object []byte) (*ebpf.CollectionSpec, error) {
	file := name + "_" + map[string]string{"amd64": "x86", "arm64": "arm64"}[runtime.GOARCH] + "_bpfel.o"
	if err := checkReleased(file, object); err != nil {
		return nil, err
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
}

// checkReleased says why a file's bytes are not those that the manifest names.
func checkReleased(file string, object []byte) error {
	is := strings.TrimPrefix(digest(object), "sha256:")
	for line := range strings.Lines(manifest) {
		if want, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && name == file {
			if want != is {
				return fmt.Errorf("the object %s is not the release's: its SHA-256 is %s, and %s in the manifest", file, is, want)
			}
			return nil
		}
	}
	return fmt.Errorf("the release's manifest has no object %q", file)
}

func digest(object []byte) string {
	sum := sha256.Sum256(object)
	return "sha256:" + hex.EncodeToString(sum[:])
}

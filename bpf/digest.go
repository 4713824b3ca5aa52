// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"encoding/hex"
)

// UprobeDigest names the object that LoadUprobe returns: "sha256:" and the SHA-256 of its bytes in hex.
func UprobeDigest() string { return digest(_UprobeBytes) }

// KprobeDigest names the object that LoadKprobe returns, likewise.
func KprobeDigest() string { return digest(_KprobeBytes) }

func digest(object []byte) string {
	sum := sha256.Sum256(object)
	return "sha256:" + hex.EncodeToString(sum[:])
}

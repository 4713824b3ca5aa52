// SPDX-License-Identifier: Apache-2.0

package grant

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Pinned reads what a node pins from two files: Ed25519 public keys of control planes, as PEM blocks of type PUBLIC KEY, and the
// verifier key of their log in the form of golang.org/x/mod/sumdb/note.
func Pinned(keysFile, logKeyFile, node string) (Verifier, error) {
	data, err := os.ReadFile(keysFile)
	if err != nil {
		return Verifier{}, fmt.Errorf("read grant keys: %w", err)
	}
	v := Verifier{Node: node}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Verifier{}, fmt.Errorf("read grant keys %s: %w", keysFile, err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return Verifier{}, fmt.Errorf("read grant keys %s: a %T; want Ed25519", keysFile, parsed)
		}
		v.Keys = append(v.Keys, key)
	}
	if len(v.Keys) == 0 {
		return Verifier{}, fmt.Errorf("read grant keys %s: no PEM block with a public key in it", keysFile)
	}
	text, err := os.ReadFile(logKeyFile)
	if err != nil {
		return Verifier{}, fmt.Errorf("read log key: %w", err)
	}
	if v.LogKey, err = note.NewVerifier(strings.TrimSpace(string(text))); err != nil {
		return Verifier{}, fmt.Errorf("read log key %s: %w", logKeyFile, err)
	}
	return v, nil
}

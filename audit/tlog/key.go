// SPDX-License-Identifier: Apache-2.0

package tlog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// A Key signs checkpoints. Its name is the log's origin.
type Key struct {
	signer   note.Signer
	verifier note.Verifier
	public   string
}

// Public is the key that everybody verifies with, in the form of golang.org/x/mod/sumdb/note.
func (k Key) Public() string { return k.public }

// LoadKey reads the signing key in a file and the public one in the file beside it that ends in .pub, or makes both, named
// after the log's origin.
func LoadKey(path, origin string) (Key, error) {
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, origin)
	}
	if err != nil {
		return Key{}, fmt.Errorf("read log key: %w", err)
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		return Key{}, fmt.Errorf("read log key: %w", err)
	}
	return newKey(string(private), string(public))
}

func makeKey(path, origin string) (Key, error) {
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return Key{}, fmt.Errorf("make log key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Key{}, fmt.Errorf("make log key: %w", err)
	}
	// The private key last: it is what says that there is a pair.
	for _, f := range []struct {
		path, text string
		mode       fs.FileMode
	}{{path + ".pub", public, 0o644}, {path, private, 0o600}} {
		if err := os.WriteFile(f.path, []byte(f.text+"\n"), f.mode); err != nil {
			return Key{}, fmt.Errorf("make log key: %w", err)
		}
	}
	return newKey(private, public)
}

func newKey(private, public string) (Key, error) {
	k := Key{public: strings.TrimSpace(public)}
	var err error
	if k.signer, err = note.NewSigner(strings.TrimSpace(private)); err != nil {
		return Key{}, fmt.Errorf("read log key: private: %w", err)
	}
	if k.verifier, err = note.NewVerifier(k.public); err != nil {
		return Key{}, fmt.Errorf("read log key: public: %w", err)
	}
	if k.signer.Name() != k.verifier.Name() || k.signer.KeyHash() != k.verifier.KeyHash() {
		return Key{}, errors.New("read log key: the public key is not the private one's")
	}
	return k, nil
}

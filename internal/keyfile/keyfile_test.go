// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadOrMake(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	first, err := LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equal(again) {
		t.Error("it is another key the second time")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is for others to read: %v %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside the key lies %v %v", left, err)
	}
}

// A file that is no key stays as it is: a new key in its place would hide what happened.
func TestLoadOrMakeRefuses(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"no PEM":        {[]byte("half"), "no PEM block"},
		"cut short":     {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[:20]}), "restore it"},
		"of other kind": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "want Ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrMake(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("it says %v; want %q and the path", err, c.want)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != string(c.content) {
				t.Errorf("the file is now %q, %v", now, err)
			}
		})
	}
}

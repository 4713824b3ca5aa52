// SPDX-License-Identifier: Apache-2.0

package grant

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func TestPinned(t *testing.T) {
	pemOf := func(public any) string {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	one, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, logKey, err := note.GenerateKey(rand.Reader, "test/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, keys, log, wrong string }{
		{"two keys", pemOf(one) + pemOf(two), logKey + "\n", ""},
		{"no key", "", logKey, "no PEM block"},
		{"another kind of key", pemOf(&other.PublicKey), logKey, "want Ed25519"},
		{"not a key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", logKey, "grant keys"},
		{"no log key", pemOf(one), "", "log key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			keys, log := filepath.Join(dir, "keys"), filepath.Join(dir, "log")
			for file, text := range map[string]string{keys: c.keys, log: c.log} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v, err := Pinned(keys, log, "n1")
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("error %v; want one that says %q", err, c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Keys) != 2 || !v.Keys[0].Equal(one) || !v.Keys[1].Equal(two) || v.LogKey.Name() != "test/log" || v.Node != "n1" {
				t.Errorf("pinned: %+v", v)
			}
		})
	}
	if _, err := Pinned("/nonexistent", "/nonexistent", "n1"); err == nil {
		t.Error("files that are not there are read")
	}
}

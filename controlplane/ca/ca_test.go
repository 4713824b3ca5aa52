// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/keyhole-dev/keyhole/internal/identity"
)

func TestIssuedCertificatesAreSVIDs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir) // the same again
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := x509bundle.Load(identity.Domain, filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "user.pem"), filepath.Join(dir, "user.key")
	who := identity.Identity{Kind: identity.User, Name: "ada"}
	if err := a.Issue(who, time.Hour, cert, key); err != nil {
		t.Fatal(err)
	}
	svid, err := x509svid.Load(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	if err != nil || id != who.ID() {
		t.Errorf("verified as %v: %v", id, err)
	}
	info, err := os.Stat(key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file is %v (%v)", info.Mode(), err)
	}

	other, err := Open(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Issue(who, time.Hour, cert, key); err != nil {
		t.Fatal(err)
	}
	if svid, err = x509svid.Load(cert, key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err == nil {
		t.Error("another authority's certificate is believed")
	}
	if err := a.Issue(who, -time.Second, cert, key); err != nil {
		t.Fatal(err)
	}
	if svid, err = x509svid.Load(cert, key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err == nil {
		t.Error("an expired certificate is believed")
	}
}

func TestSpoiledAuthority(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("spoiled"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a spoiled key is taken, or a new authority made in its place")
	}
}

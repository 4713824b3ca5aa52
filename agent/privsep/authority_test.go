// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

const testNode = "node-1"

// An authority signs grants as a control plane does, each with a log of its own that holds nothing but its intent.
type authority struct {
	t                 testing.TB
	key               ed25519.PrivateKey
	log               note.Signer
	grantKeys, logKey string // files
	rules             *redact.Ruleset
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, "keyhole.test/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: private, log: signer, grantKeys: filepath.Join(dir, "grant-keys.pem"), logKey: filepath.Join(dir, "log-key"), rules: redact.Shipped()}
	for path, data := range map[string][]byte{
		a.grantKeys: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		a.logKey:    []byte(vkey + "\n"),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// grant signs a grant for a session and puts its intent on record.
func (a *authority) grant(session string, spec probe.Spec) []byte {
	a.t.Helper()
	return a.sign(a.build(session, spec), a.key)
}

func (a *authority) build(session string, spec probe.Spec) grant.Grant {
	a.t.Helper()
	g := grant.Grant{
		SessionID: session, Revision: 1, Node: testNode, Requester: "spiffe://keyhole.dev/user/tester", Spec: spec, Rules: *a.rules,
		TTL: spec.WithDefaults().Limits.TTL, PolicyDigest: "sha256:" + strings.Repeat("0", 64), Issued: time.Now(),
	}
	record := audit.Record{
		Kind: audit.Granted, Time: time.Now().UTC(), SessionID: session, Node: testNode, Actor: g.Requester, Details: g.Evidence(),
	}
	leaf, err := record.Marshal()
	if err != nil {
		a.t.Fatal(err)
	}
	checkpoint := log.Checkpoint{Origin: a.log.Name(), Size: 1, Hash: rfc6962.DefaultHasher.HashLeaf(leaf)}
	signed, err := note.Sign(&note.Note{Text: string(checkpoint.Marshal())}, a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	g.Intent = grant.Intent{Leaf: leaf, Checkpoint: signed}
	return g
}

func (a *authority) sign(g grant.Grant, key ed25519.PrivateKey) []byte {
	a.t.Helper()
	envelope, err := grant.Sign(g, key)
	if err != nil {
		a.t.Fatal(err)
	}
	return envelope
}

// SPDX-License-Identifier: Apache-2.0

package grant

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// A Verifier is what a node pins.
type Verifier struct {
	Keys   []ed25519.PublicKey // of the control planes
	LogKey note.Verifier       // of their log; its name is the log's origin
	Node   string              // this node
}

// Bounds of a proof. A log of 2^63 leaves has proofs of 63 hashes.
const (
	maxProof      = 64
	maxLeaf       = 64 << 10
	maxCheckpoint = 16 << 10
)

// Verify returns the grant in an envelope if there is no reason against acting on it: it is signed by a pinned key, for this
// node, holds a valid request, and proves that a record of exactly this request, session and node is in the log. Whether the
// grant is a replay is for whoever remembers the earlier ones. An error is a *problem.Error of code PermissionDenied.
func Verify(envelope []byte, v Verifier) (*Grant, error) {
	g, err := v.verify(envelope)
	if err != nil {
		return nil, problem.New(problem.PermissionDenied, "grant: %v", err)
	}
	return g, nil
}

func (v *Verifier) verify(envelope []byte) (*Grant, error) {
	payload, err := open(envelope, v.Keys)
	if err != nil {
		return nil, err
	}
	var g Grant
	if err := strictJSON(payload, &g); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if err := g.validate(); err != nil {
		return nil, err
	}
	if g.Node != v.Node {
		return nil, fmt.Errorf("it is for node %s, and this is %s", g.Node, v.Node)
	}
	if err := v.verifyIntent(&g); err != nil {
		return nil, fmt.Errorf("the intent is not proved to be on record: %w", err)
	}
	return &g, nil
}

// verifyIntent: no proof, no attach.
func (v *Verifier) verifyIntent(g *Grant) error {
	i := &g.Intent
	if len(i.Leaf) > maxLeaf || len(i.Checkpoint) > maxCheckpoint || len(i.Proof) > maxProof ||
		slices.ContainsFunc(i.Proof, func(hash []byte) bool { return len(hash) != sha256.Size }) {
		return errors.New("the proof is out of bounds")
	}
	if v.LogKey == nil {
		return errors.New("this node has no key of the log")
	}
	checkpoint, _, _, err := log.ParseCheckpoint(i.Checkpoint, v.LogKey.Name(), v.LogKey)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	leafHash := rfc6962.DefaultHasher.HashLeaf(i.Leaf)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i.Index, checkpoint.Size, leafHash, i.Proof, checkpoint.Hash); err != nil {
		return fmt.Errorf("leaf %d: %w", i.Index, err)
	}
	return g.recordedIn(i.Leaf)
}

// The names, among the details of the record of an intent, of what a grant must agree with.
const (
	specDigest   = "specDigest"
	rulesDigest  = "rulesDigest"
	policyDigest = "policyDigest"
)

// Evidence are the details that the record of a grant's intent must have.
func (g *Grant) Evidence() map[string]string {
	rules, err := json.Marshal(g.Rules)
	if err != nil {
		panic("grant: a Ruleset has a JSON form: " + err.Error())
	}
	sum := sha256.Sum256(rules)
	return map[string]string{specDigest: g.Spec.Digest(), rulesDigest: "sha256:" + hex.EncodeToString(sum[:]), policyDigest: g.PolicyDigest}
}

// recordedIn says whether a leaf of the log is the record of this grant.
func (g *Grant) recordedIn(leaf []byte) error {
	r, err := audit.Parse(leaf)
	if err != nil {
		return err
	}
	switch {
	case r.Kind != audit.Granted:
		return fmt.Errorf("the record says %.32q; want %s", r.Kind, audit.Granted)
	case r.SessionID != g.SessionID:
		return fmt.Errorf("the record is about session %.64q", r.SessionID)
	case r.Node != g.Node:
		return fmt.Errorf("the record is about node %.64q", r.Node)
	case r.Actor != g.Requester:
		return fmt.Errorf("the record is of a request by %.256q", r.Actor)
	}
	for name, want := range g.Evidence() {
		if r.Details[name] != want {
			return fmt.Errorf("the record is about another request: its %s is not the grant's", name)
		}
	}
	return nil
}

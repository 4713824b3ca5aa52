// SPDX-License-Identifier: Apache-2.0

// Package grant is the permission that a node acts on: a request, signed by the control plane for one node and one
// session, with the proof that it is on record. A node believes nothing else that it is told.
package grant

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

// PayloadType is what the envelope of a grant says that it holds.
const PayloadType = "application/vnd.keyhole.grant.v1+json"

// A Grant permits one session on one node.
type Grant struct {
	SessionID string     `json:"sessionId"`
	Revision  int64      `json:"revision"` // counted from 1; a node refuses one lower than what it has
	Node      string     `json:"node"`     // the only node that may act on it
	Requester string     `json:"requester"`
	Spec      probe.Spec `json:"spec"`
	// Rules are the owner's, which the node adds to its own and to the shipped ones.
	Rules redact.Ruleset `json:"rules"`
	// TTL counts from the attach, on the node's clock; never more than the request's.
	TTL          time.Duration `json:"ttlNs"`
	PolicyDigest string        `json:"policyDigest"`
	Issued       time.Time     `json:"issued"` // by the control plane's clock; for people
	Intent       Intent        `json:"intent"`
}

// An Intent proves that the request is on record: the record is the leaf with this index in the log whose signed checkpoint
// is given.
type Intent struct {
	Index      uint64   `json:"index"`
	Leaf       []byte   `json:"leaf"`
	Proof      [][]byte `json:"proof"`
	Checkpoint []byte   `json:"checkpoint"`
}

// Bounds of what Verify reads.
const (
	maxEnvelope   = 4 << 20
	maxSignatures = 8
	maxRequester  = 512
)

var (
	validSession = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	validDigest  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Sign makes the DSSE envelope of a valid grant, signed by one control plane's key.
func Sign(g Grant, key ed25519.PrivateKey) ([]byte, error) {
	if err := g.validate(); err != nil {
		return nil, fmt.Errorf("sign grant: %w", err)
	}
	payload, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("sign grant: %w", err)
	}
	signer, err := dsse.NewEnvelopeSigner(signingKey(key))
	if err != nil {
		return nil, fmt.Errorf("sign grant: %w", err)
	}
	envelope, err := signer.SignPayload(context.Background(), PayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign grant: %w", err)
	}
	return json.Marshal(envelope)
}

// open checks an envelope's signature by one of the keys and returns what it holds. Nothing in the payload is looked at
// before.
func open(envelope []byte, keys []ed25519.PublicKey) ([]byte, error) {
	if len(envelope) > maxEnvelope {
		return nil, fmt.Errorf("%d bytes; at most %d", len(envelope), maxEnvelope)
	}
	var e dsse.Envelope
	if err := strictJSON(envelope, &e); err != nil {
		return nil, fmt.Errorf("not an envelope: %w", err)
	}
	if e.PayloadType != PayloadType {
		return nil, fmt.Errorf("holds %.64q; want %s", e.PayloadType, PayloadType)
	}
	if len(e.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%d signatures; at most %d", len(e.Signatures), maxSignatures)
	}
	verifiers := make([]dsse.Verifier, 0, len(keys))
	seen := make(map[string]bool)
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && !seen[string(k)] {
			verifiers = append(verifiers, verifyingKey(k))
			seen[string(k)] = true
		}
	}
	if len(verifiers) == 0 {
		return nil, errors.New("this node has no key to check a grant with")
	}
	verifier, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return nil, err
	}
	_, payload, err := verifier.VerifyAndDecode(context.Background(), &e)
	if err != nil {
		return nil, fmt.Errorf("not signed by a control plane that this node knows: %w", err)
	}
	return payload, nil
}

// strictJSON reads exactly one value without unknown fields.
func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// validate bounds everything but the proof.
func (g *Grant) validate() error {
	if !validSession.MatchString(g.SessionID) {
		return fmt.Errorf("session %.80q: want letters, digits, '.', '_' and '-', at most 64", g.SessionID)
	}
	if g.Revision < 1 {
		return fmt.Errorf("revision %d: counted from 1", g.Revision)
	}
	if g.Node == "" || len(g.Node) > 253 {
		return errors.New("names no node")
	}
	if g.Requester == "" || len(g.Requester) > maxRequester || !utf8.ValidString(g.Requester) ||
		strings.ContainsFunc(g.Requester, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("requester %.80q: want a printable name", g.Requester)
	}
	if err := g.Spec.Validate(); err != nil {
		return err
	}
	if g.Spec.Target.Node != "" && g.Spec.Target.Node != g.Node {
		return fmt.Errorf("the request is for node %s, the grant for %s", g.Spec.Target.Node, g.Node)
	}
	if asked := g.Spec.WithDefaults().Limits.TTL; g.TTL < time.Second || g.TTL > asked {
		return fmt.Errorf("a TTL of %v, and %v was asked for", g.TTL, asked)
	}
	if !validDigest.MatchString(g.PolicyDigest) {
		return fmt.Errorf("policy digest %.80q: want sha256: and 64 hex digits", g.PolicyDigest)
	}
	return nil
}

// signingKey signs envelopes.
type signingKey ed25519.PrivateKey

func (k signingKey) Sign(_ context.Context, data []byte) ([]byte, error) {
	if len(k) != ed25519.PrivateKeySize {
		return nil, errors.New("not an Ed25519 key")
	}
	return ed25519.Sign(ed25519.PrivateKey(k), data), nil
}

func (k signingKey) KeyID() (string, error) {
	if len(k) != ed25519.PrivateKeySize {
		return "", errors.New("not an Ed25519 key")
	}
	return dsse.SHA256KeyID(ed25519.PrivateKey(k).Public())
}

// verifyingKey checks envelopes.
type verifyingKey ed25519.PublicKey

func (k verifyingKey) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(ed25519.PublicKey(k), data, sig) {
		return errors.New("wrong signature")
	}
	return nil
}

func (k verifyingKey) KeyID() (string, error)   { return dsse.SHA256KeyID(k.Public()) }
func (k verifyingKey) Public() crypto.PublicKey { return ed25519.PublicKey(k) }

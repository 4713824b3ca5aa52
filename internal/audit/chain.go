// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A Link ties a node's record to the one before it, so that one that is taken out or changed later is missed.
type Link struct {
	Sequence  uint64 `json:"sequence"`           // counted from 1
	Previous  []byte `json:"previous,omitempty"` // SHA-256 of the record before; none of the first
	Signature []byte `json:"signature,omitempty"`
}

// A Head is the end of a chain: what the next record has to follow.
type Head struct {
	Sequence uint64 `json:"sequence"`
	Hash     []byte `json:"hash"` // SHA-256 of the record with that number
}

// Extend signs r as the record that follows h and returns its form and the new end.
func (h Head) Extend(r Record, key ed25519.PrivateKey) ([]byte, Head, error) {
	r.Chain = &Link{Sequence: h.Sequence + 1, Previous: h.Hash}
	unsigned, err := r.Marshal()
	if err != nil {
		return nil, h, err
	}
	r.Chain.Signature = ed25519.Sign(key, unsigned)
	data, err := r.Marshal()
	if err != nil {
		return nil, h, err
	}
	hash := sha256.Sum256(data)
	return data, Head{Sequence: h.Sequence + 1, Hash: hash[:]}, nil
}

// Is says whether data is the record that h stands for.
func (h Head) Is(data []byte) bool {
	hash := sha256.Sum256(data)
	return h.Sequence != 0 && string(h.Hash) == string(hash[:])
}

// Follow checks that data is the record that follows h, signed by key and about node, and returns it with the new end.
// The zero Head is followed by a record of any number: a log that was begun later than the node's.
func (h Head) Follow(data []byte, key ed25519.PublicKey, node string) (*Record, Head, error) {
	r, err := Parse(data)
	if err != nil {
		return nil, h, err
	}
	switch {
	case r.Chain == nil:
		return nil, h, errors.New("follow audit chain: the record is in no chain")
	case r.Node != node:
		return nil, h, fmt.Errorf("follow audit chain: a record of node %.64q", r.Node)
	case len(key) != ed25519.PublicKeySize:
		return nil, h, errors.New("follow audit chain: no key")
	case h.Sequence != 0 && r.Chain.Sequence != h.Sequence+1:
		return nil, h, fmt.Errorf("follow audit chain: record %d comes after %d", r.Chain.Sequence, h.Sequence)
	case h.Sequence != 0 && string(r.Chain.Previous) != string(h.Hash):
		return nil, h, fmt.Errorf("follow audit chain: record %d does not follow the %d that is known", r.Chain.Sequence, h.Sequence)
	}
	signature := r.Chain.Signature
	unsigned := *r
	unsigned.Chain = &Link{Sequence: r.Chain.Sequence, Previous: r.Chain.Previous}
	form, err := unsigned.Marshal()
	if err != nil {
		return nil, h, err
	}
	if !ed25519.Verify(key, form, signature) {
		return nil, h, fmt.Errorf("follow audit chain: record %d is not signed by the node's key", r.Chain.Sequence)
	}
	hash := sha256.Sum256(data)
	return r, Head{Sequence: r.Chain.Sequence, Hash: hash[:]}, nil
}

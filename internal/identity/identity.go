// SPDX-License-Identifier: Apache-2.0

// Package identity says who a certificate speaks for: a SPIFFE ID (https://spiffe.io, SPIFFE-ID 1.0) of our trust domain
// whose path names a kind and, but for the control plane, a name.
package identity

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Domain is the trust domain of everything that takes part.
var Domain = spiffeid.RequireTrustDomainFromString("keyhole.dev")

// A Kind is what somebody is, and so what methods are for.
type Kind string

// The kinds of identity.
const (
	User         Kind = "user" // a person, or a pipeline or bot that acts as one
	Node         Kind = "node" // an agent
	ControlPlane Kind = "control-plane"
)

// An Identity is a proved one.
type Identity struct {
	Kind Kind
	Name string // empty for a control plane
}

// Of reads a SPIFFE ID: spiffe://keyhole.dev/user/NAME, /node/NAME or /control-plane.
func Of(id spiffeid.ID) (Identity, error) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	i := Identity{Kind: Kind(kind), Name: name}
	if !id.MemberOf(Domain) || i.ID() != id {
		return Identity{}, fmt.Errorf("identity %.256q is none of %s", id, Domain)
	}
	return i, nil
}

// ID is the SPIFFE ID of a valid identity; the zero ID of one that is not.
func (i Identity) ID() spiffeid.ID {
	segments := []string{string(i.Kind)}
	switch {
	case (i.Kind == User || i.Kind == Node) && i.Name != "":
		segments = append(segments, i.Name)
	case i.Kind == ControlPlane && i.Name == "":
	default:
		return spiffeid.ID{}
	}
	id, err := spiffeid.FromSegments(Domain, segments...)
	if err != nil {
		return spiffeid.ID{}
	}
	return id
}

func (i Identity) String() string { return i.ID().String() }

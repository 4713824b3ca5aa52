// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/tls"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/keyhole-dev/keyhole/internal/identity"
)

// identity is this node's.
func (c *Config) identity() identity.Identity {
	return identity.Identity{Kind: identity.Node, Name: c.Node}
}

// tls reads this node's credentials as they are on disk now. The other end has to be the control plane by its identity; its
// address proves nothing.
func (c *Config) tls() (*tls.Config, error) {
	svid, err := x509svid.Load(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	authorities, err := x509bundle.Load(identity.Domain, c.CA)
	if err != nil {
		return nil, fmt.Errorf("read the authorities: %w", err)
	}
	controlPlane := identity.Identity{Kind: identity.ControlPlane}
	config := tlsconfig.MTLSClientConfig(svid, authorities, tlsconfig.AuthorizeID(controlPlane.ID()))
	config.MinVersion = tls.VersionTLS13
	return config, nil
}

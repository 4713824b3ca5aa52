// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/tls"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var (
	trustDomain  = spiffeid.RequireTrustDomainFromString("keyhole.dev")
	controlPlane = spiffeid.RequireFromPath(trustDomain, "/control-plane")
)

// identity is this node's, as the control plane knows it.
func (c *Config) identity() string { return trustDomain.IDString() + "/node/" + c.Node }

// tls reads this node's credentials as they are on disk now. The other end has to be the control plane by its identity; its
// address proves nothing.
func (c *Config) tls() (*tls.Config, error) {
	svid, err := x509svid.Load(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	authorities, err := x509bundle.Load(trustDomain, c.CA)
	if err != nil {
		return nil, fmt.Errorf("read the authorities: %w", err)
	}
	config := tlsconfig.MTLSClientConfig(svid, authorities, tlsconfig.AuthorizeID(controlPlane))
	config.MinVersion = tls.VersionTLS13
	return config, nil
}

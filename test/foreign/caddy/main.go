// SPDX-License-Identifier: Apache-2.0

// Command caddy is the Caddy web server, unchanged, built from its module: a well-known Go program that
// knows nothing of us. It is a module of its own so that nothing of it gets into ours.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard" // the HTTP handlers that are probed
)

func main() { caddycmd.Main() }

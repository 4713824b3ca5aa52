// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/keyhole-dev/keyhole/agent/loader"

// Supported says in one sentence why no agent started by this process could take a session; nil if one could. It loads the
// real program, and so needs root itself. With perfEvents the kernel needs no uprobe_multi links.
func Supported(perfEvents bool) error { return loader.Supported(perfEvents) }

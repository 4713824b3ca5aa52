// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/keyhole-dev/keyhole/agent"
	"github.com/keyhole-dev/keyhole/agent/privsep"
)

// becomeRole makes this process one of those that `keyhole dev` starts, if it is one.
func becomeRole() { privsep.Main(privsep.Roles{Agent: agent.Role}) }

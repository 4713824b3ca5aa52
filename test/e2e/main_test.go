// SPDX-License-Identifier: Apache-2.0

// Package e2e_test looks at the product from outside: what must hold of it, on real commands, processes and kernel.
package e2e_test

import (
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

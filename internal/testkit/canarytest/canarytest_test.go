// SPDX-License-Identifier: Apache-2.0

package canarytest

import (
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestComplete wants a value of each kind of value, and an action of each kind of action, that there is.
func TestComplete(t *testing.T) {
	kinds := make(map[string]bool)
	for _, p := range Programs {
		for _, v := range p.Values {
			kinds[v.Kind] = true
		}
	}
	for _, kind := range testkit.Constants(t, "internal/target", "Kind") {
		if !kinds[kind] {
			t.Errorf("no canary is of target.%s", kind)
		}
	}
	for _, kind := range testkit.Constants(t, "internal/redact", "Kind") {
		if _, ok := Actions[kind]; !ok {
			t.Errorf("no canary has redact.%s", kind)
		}
	}
}

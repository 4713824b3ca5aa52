// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestOf(t *testing.T) {
	for text, want := range map[string]Identity{
		"spiffe://keyhole.dev/user/ada":      {User, "ada"},
		"spiffe://keyhole.dev/node/n-1.test": {Node, "n-1.test"},
		"spiffe://keyhole.dev/control-plane": {ControlPlane, ""},
	} {
		got, err := Of(spiffeid.RequireFromString(text))
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"spiffe://keyhole.dev", "spiffe://keyhole.dev/user", "spiffe://keyhole.dev/user/a/b", "spiffe://keyhole.dev/control-plane/x",
		"spiffe://keyhole.dev/admin/ada", "spiffe://example.org/user/ada",
	} {
		if got, err := Of(spiffeid.RequireFromString(text)); err == nil {
			t.Errorf("%s: taken as %+v", text, got)
		}
	}
	if (Identity{User, "a/b"}).ID() != (spiffeid.ID{}) || (Identity{}).ID() != (spiffeid.ID{}) {
		t.Error("an identity that is none has an ID")
	}
}

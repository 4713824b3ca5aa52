// SPDX-License-Identifier: Apache-2.0

package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
)

func TestOf(t *testing.T) {
	p := New(NotFound, "process %d is gone", 7)
	if got := Of(fmt.Errorf("inspect: %w", p)); got != p {
		t.Errorf("Of a wrapped problem = %#v; want it unwrapped", got)
	}
	if got := Of(errors.New("disk on fire")); got.Code != Internal || got.Message != "disk on fire" {
		t.Errorf("Of an ordinary error = %#v", got)
	}
	if got := Of(nil); got != nil {
		t.Errorf("Of(nil) = %#v", got)
	}
}

// TestCodes holds the names to gRPC's own, since the edge turns one into the other.
func TestCodes(t *testing.T) {
	for _, name := range []string{Canceled, Unknown, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied,
		ResourceExhausted, FailedPrecondition, Aborted, Unimplemented, Internal, Unavailable, Unauthenticated} {
		var c codes.Code
		if err := json.Unmarshal([]byte(`"`+name+`"`), &c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

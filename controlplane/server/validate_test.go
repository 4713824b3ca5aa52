// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	protovalidate_middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestInvalidMessagesNameTheirFields(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	spec := wire.ToSpec(&probe.Spec{Target: probe.Selector{Kind: probe.SelectPID, PID: 1}, Function: "f", Arguments: []string{"a", ""}})
	_, err = protovalidate_middleware.UnaryServerInterceptor(validator)(t.Context(), &keyholev1.CreateSessionRequest{Spec: spec}, nil, nil)
	s := status.Convert(toStatus(err))
	if s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), "spec.arguments[1]: ") || strings.Contains(s.Message(), "\n") {
		t.Errorf("got %v: %s", s.Code(), s.Message())
	}
	var fields []string
	for _, detail := range s.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	if want := []string{"spec.arguments[1]", "spec.reason"}; !slices.Equal(fields, want) {
		t.Errorf("violations of %q, want %q", fields, want)
	}
	other := problem.New(problem.NotFound, "no such thing")
	if got := wire.FromStatus(toStatus(other)); got.Code != other.Code || got.Message != other.Message {
		t.Errorf("another error became %v", got)
	}
	if toStatus(nil) != nil {
		t.Error("no error became one")
	}
}

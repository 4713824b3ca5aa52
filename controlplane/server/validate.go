// SPDX-License-Identifier: Apache-2.0

package server

import (
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
)

// toStatus is the status that a caller sees. What validation has against a message is told in one line, and field by field in the
// details that google.rpc has for it.
func toStatus(err error) error {
	err = wire.ToStatus(err)
	s := status.Convert(err)
	bad := &errdetails.BadRequest{}
	var lines []string
	for _, detail := range s.Details() {
		violations, ok := detail.(*validate.Violations)
		if !ok {
			continue
		}
		for _, v := range violations.GetViolations() {
			field := protovalidate.FieldPathString(v.GetField())
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: v.GetMessage()})
			lines = append(lines, field+": "+v.GetMessage())
		}
	}
	if len(lines) == 0 {
		return err
	}
	s = status.New(s.Code(), strings.Join(lines, "; "))
	if detailed, err := s.WithDetails(bad, &errdetails.ErrorInfo{Reason: problem.InvalidArgument, Domain: wire.Domain}); err == nil {
		s = detailed
	}
	return s.Err()
}

// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Domain is the error domain of our google.rpc.ErrorInfo details.
const Domain = "keyhole.dev"

// candidateKey is the metadata key of the n-th candidate in an ErrorInfo.
func candidateKey(n int) string { return "candidate" + strconv.Itoa(n) }

// ToProblem writes a problem that crosses the agent's stream.
func ToProblem(p *problem.Error) *keyholev1.Problem {
	if p == nil {
		return nil
	}
	return &keyholev1.Problem{Code: p.Code, Message: p.Message, Candidates: p.Candidates}
}

// FromProblem reads a problem that crossed the agent's stream. A code that no gRPC status has becomes UNKNOWN.
func FromProblem(m *keyholev1.Problem) *problem.Error {
	if m == nil {
		return nil
	}
	code := m.GetCode()
	if _, known := codeOf(code); !known {
		code = problem.Unknown
	}
	return &problem.Error{Code: code, Message: m.GetMessage(), Candidates: m.GetCandidates()}
}

// ToStatus turns any error into the gRPC status that a caller sees: a *problem.Error with its code and its candidates as
// google.rpc details; the end of a context as what it is; everything else as INTERNAL, with its text.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	p := problem.Of(err)
	code, known := codeOf(p.Code)
	if !known {
		code = codes.Unknown
	}
	s := status.New(code, p.Message)
	info := &errdetails.ErrorInfo{Reason: p.Code, Domain: Domain}
	for i, candidate := range p.Candidates {
		if info.Metadata == nil {
			info.Metadata = make(map[string]string, len(p.Candidates))
		}
		info.Metadata[candidateKey(i)] = candidate
	}
	if detailed, err := s.WithDetails(info); err == nil {
		s = detailed
	}
	return s.Err()
}

// FromStatus reads what ToStatus wrote, and any other gRPC error.
func FromStatus(err error) *problem.Error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	p := &problem.Error{Code: codeName(s.Code()), Message: s.Message()}
	for _, detail := range s.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != Domain {
			continue
		}
		for i := 0; ; i++ {
			candidate, ok := info.GetMetadata()[candidateKey(i)]
			if !ok {
				break
			}
			p.Candidates = append(p.Candidates, candidate)
		}
	}
	return p
}

// codeOf finds a code by its name in the gRPC specification.
func codeOf(name string) (codes.Code, bool) {
	var c codes.Code
	err := c.UnmarshalJSON([]byte(strconv.Quote(name)))
	return c, err == nil && c != codes.OK
}

// codeName is a code's name in the gRPC specification.
func codeName(c codes.Code) string {
	for _, name := range []string{
		problem.Canceled, problem.InvalidArgument, problem.DeadlineExceeded, problem.NotFound, problem.AlreadyExists,
		problem.PermissionDenied, problem.ResourceExhausted, problem.FailedPrecondition, problem.Aborted,
		problem.Unimplemented, problem.Internal, problem.Unavailable, problem.Unauthenticated,
	} {
		if known, ok := codeOf(name); ok && known == c {
			return name
		}
	}
	return problem.Unknown
}

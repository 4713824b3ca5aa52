// SPDX-License-Identifier: Apache-2.0

// Package problem is an error that crosses the boundary of a process: a kind that a program can act on, a sentence for
// people and, where something was ambiguous or not found, the names to choose from.
package problem

import (
	"errors"
	"fmt"
)

// The kinds of problem: the names of gRPC's status codes, which is what a caller sees at the end.
const (
	Canceled           = "CANCELLED"
	Unknown            = "UNKNOWN"
	InvalidArgument    = "INVALID_ARGUMENT"
	DeadlineExceeded   = "DEADLINE_EXCEEDED"
	NotFound           = "NOT_FOUND"
	AlreadyExists      = "ALREADY_EXISTS"
	PermissionDenied   = "PERMISSION_DENIED"
	ResourceExhausted  = "RESOURCE_EXHAUSTED"
	FailedPrecondition = "FAILED_PRECONDITION"
	Aborted            = "ABORTED"
	Unimplemented      = "UNIMPLEMENTED"
	Internal           = "INTERNAL"
	Unavailable        = "UNAVAILABLE"
	Unauthenticated    = "UNAUTHENTICATED"
)

// An Error says what is wrong with a request, not with us, unless its Code is Internal.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Candidates are what the requester may have meant, the nearest first.
	Candidates []string `json:"candidates,omitempty"`
}

// New makes an Error with a formatted message.
func New(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Of finds the Error that err is or wraps. An error that is none becomes one of code Internal with its text; nil stays nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Error](err); ok {
		return p
	}
	return &Error{Code: Internal, Message: err.Error()}
}

func (e *Error) Error() string { return e.Message }

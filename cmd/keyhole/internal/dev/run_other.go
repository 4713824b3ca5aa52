// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dev

import (
	"context"
	"runtime"

	"github.com/keyhole-dev/keyhole/internal/problem"
)

// Run says that this is not the place.
func Run(context.Context, Config) error {
	return problem.New(problem.FailedPrecondition, "keyhole dev needs Linux 6.6 or later, and this is %s: in the project's sources, `vagrant up` makes a Linux machine", runtime.GOOS)
}

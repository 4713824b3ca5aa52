// SPDX-License-Identifier: Apache-2.0

// Package keyholev1 is generated from keyhole.proto: the messages and services between requesters, agents and the
// control plane.
package keyholev1

//go:generate ../../../scripts/proto.sh generate

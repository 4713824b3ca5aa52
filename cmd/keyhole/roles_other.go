// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// becomeRole does nothing: agents run on Linux only.
func becomeRole() {}

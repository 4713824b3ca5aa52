// SPDX-License-Identifier: Apache-2.0

package selftest

// Written in assembly, so that every instruction is known.

// site is what is probed.
func site() //nolint:unused // called from assembly

// callSite calls site so many times, at least once, with these values where a C function has its first two arguments.
//
//go:noescape
func callSite(number uint64, text *byte, times uint64)

// siteAddress is that of site itself; a func value's would be that of Go's wrapper.
func siteAddress() uintptr

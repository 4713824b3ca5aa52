// SPDX-License-Identifier: Apache-2.0

//go:build !race

package testkit

// RaceDetector says whether these tests, and the programs that they build, were built with it.
const RaceDetector = false

// SPDX-License-Identifier: Apache-2.0

//go:build !race

package privsep

const raceDetector = false

var raceEnvironment []string

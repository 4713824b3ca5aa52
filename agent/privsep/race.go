// SPDX-License-Identifier: Apache-2.0

//go:build race

package privsep

const raceDetector = true

// raceEnvironment spares short-lived processes the second that the race detector waits at every exit.
var raceEnvironment = []string{"GORACE=atexit_sleep_ms=0"}

//go:build ignore

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log"
	"os"

	"github.com/keyhole-dev/keyhole/internal/detect"
)

func main() {
	tables, err := detect.MakeTables()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("tables.gob.gz", tables, 0o644); err != nil {
		log.Fatal(err)
	}
}

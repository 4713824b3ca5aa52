// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

func TestSizes(t *testing.T) {
	for _, s := range Sets() {
		start := time.Now()
		m, err := s.machine()
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		image, err := dfa.NewImage([]*dfa.Machine{m})
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		t.Logf("%-12s forward %d backward %d classes %d words %d required %x in %v", s.Name, len(m.Forward.Flags), len(m.Backward.Flags), m.Forward.Classes, len(image.Words), image.Machines[0].Required, time.Since(start))
	}
	all, err := Machines(All)
	if err != nil {
		t.Fatal(err)
	}
	image, err := dfa.NewImage(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("all: %d words", len(image.Words))
}

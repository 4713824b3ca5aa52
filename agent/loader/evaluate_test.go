// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/plan/plantest"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestKernelAgreesWithEvaluator loads random plans and hits them with random registers and memory. The record must be, byte for
// byte, the one that the plain evaluator of plans makes, and there must be none where its conditions do not hold.
func TestKernelAgreesWithEvaluator(t *testing.T) {
	p := startHot(t)
	var registers []int
	for i := range 6 {
		registers = append(registers, hot.Argument(i).Register)
	}
	requests := rapid.Custom(func(t *rapid.T) plantest.Request { return plantest.Draw(t, registers...) })
	hits := rapid.Custom(plantest.DrawHit)
	dir := t.TempDir()
	compared, values := 0, 0
	for seed := range testkit.Scale(40) {
		r := requests.Example(seed)
		drawn := r.Target.Values
		r.Target = p.Target(t, "hot_image", drawn...)
		r.Spec.Target.PID = p.PID()
		r.Spec.Limits.Rate, r.Spec.Limits.MaxBytes = probe.MaxRate, probe.MaxBytes
		compiled, err := plan.Compile(r.Spec, r.Target, r.Rules)
		if err != nil {
			continue // too much for one probe
		}
		s := attachPlan(t, p, compiled, request{ring: 1 << 20})
		for n := range 6 {
			hit := hits.Example(1000*seed + n)
			hit.Key = s.key(t)
			image := filepath.Join(dir, fmt.Sprintf("%d.%d", seed, n))
			if err := os.WriteFile(image, bytes.Join([][]byte{hit.Memory[plantest.Regions[0]], hit.Memory[plantest.Regions[1]]}, nil), 0o644); err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, register := range registers {
				words = append(words, fmt.Sprintf("%#x", hit.Registers[register]))
			}
			p.Do(t, "image %s %s", image, strings.Join(words, " "))
			got := s.records(t)
			want, holds := plantest.Evaluate(compiled, hit)
			if !holds || len(got) != 1 {
				if holds || len(got) != 0 {
					t.Fatalf("seed %d, hit %d: %d records; the condition %q holds: %v\n%s", seed, n, len(got), r.Spec.Where, holds, compiled.Listing())
				}
				continue
			}
			copy(want, got[0][:20]) // when, who and where; the length stays
			copy(want[24:48], got[0][24:48])
			if !bytes.Equal(got[0], want) {
				t.Fatalf("seed %d, hit %d: the kernel's record\n%x\nis not the evaluator's\n%x\n%s", seed, n, got[0], want, compiled.Listing())
			}
			compared++
			values += present(compiled, want)
		}
		s.requireScratchZero(t)
		s.Close()
	}
	t.Logf("%d records with %d values that could be read, on %s", compared, values, runtime.GOARCH)
	if least := testkit.Scale(100); compared < least || values < least {
		t.Errorf("only %d records with %d values were compared", compared, values)
	}
}

// present counts the values of a record that are not missing.
func present(p *plan.Plan, record []byte) int {
	rest, n := record[plan.RecordHeaderBytes:], 0
	for i := range p.Fields {
		if !p.Fields[i].Emits {
			continue
		}
		if rest[0] == plan.ReasonOK {
			n++
		}
		rest = rest[plan.ValueHeaderBytes+plan.Padded(int(binary.LittleEndian.Uint16(rest[2:]))):]
	}
	return n
}

// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"testing"
)

func TestValidateStack(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Spec)
		says   string // empty: valid
	}{
		"of a process":  {func(*Spec) {}, ""},
		"with results":  {func(s *Spec) { s.Results = []string{"err"} }, ""},
		"of a count":    {func(s *Spec) { s.Aggregate = AggregateCount }, "no event leaves that could have a --stack"},
		"of the kernel": {func(s *Spec) { s.Target = Selector{Kind: SelectKernel} }, "--stack: the stacks of the kernel are not read"},
	} {
		s := Spec{Target: Selector{Kind: SelectPID, PID: 1}, Function: "main.f", Reason: "test", Stack: true}
		c.change(&s)
		err := s.Validate()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

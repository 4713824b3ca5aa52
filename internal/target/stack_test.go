// SPDX-License-Identifier: Apache-2.0

package target

import (
	"math"
	"strings"
	"testing"
)

func TestValidateStack(t *testing.T) {
	for what, c := range map[string]struct {
		modules []Module
		says    string // empty: valid
	}{
		"none":             {nil, ""},
		"two":              {[]Module{{Name: "shop", Start: 1 << 20, End: 2 << 20, Own: true}, {Name: "[vdso]", Start: 3 << 20, End: 4 << 20}}, ""},
		"too many":         {make([]Module, MaxModules+1), "at most 256"},
		"a name in colour": {[]Module{{Name: "\x1b[2J", Start: 1, End: 2}}, "module"},
		"no bytes":         {[]Module{{Name: "x", Start: 2, End: 2}}, "without bytes"},
		"round the end":    {[]Module{{Name: "x", Start: 1, End: 1 << 20, Offset: math.MaxUint64 - 8}}, "more than there can be"},
	} {
		tgt := good()
		tgt.Stack = &Stack{Modules: c.modules}
		err := tgt.Validate()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v does not say %q", what, err, c.says)
		}
	}
	kernel := goodKernel()
	kernel.Stack = new(Stack)
	if err := kernel.Validate(); err == nil || !strings.Contains(err.Error(), "of the kernel") {
		t.Errorf("stacks of the kernel: %v", err)
	}
}

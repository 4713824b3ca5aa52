// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

func TestKernelSettings(t *testing.T) {
	for text, want := range map[string]Kernel{
		"version: 1":                             Default().Kernel,
		"version: 1\nkernel: {readMemory: true}": {Default().Kernel.Functions, true},
		"version: 1\nkernel: {functions: [do_exit, \"tcp_*\"]}":                   {[]string{"do_exit", "tcp_*"}, false},
		"version: 1\nkernel: {functions: [], readMemory: true}":                   {[]string{}, true},
		"version: 1\nkernel: {functions: [do_exit]}\nforbid: {functions: [do_*]}": {[]string{"do_exit"}, false},
	} {
		c, err := Parse([]byte(text))
		if err != nil || !slices.Equal(c.Kernel.Functions, want.Functions) || c.Kernel.ReadMemory != want.ReadMemory {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	for _, text := range []string{"kernel: {functions: [\"\"]}", "kernel: {functions: do_exit}", "kernel: {memory: true}"} {
		if c, err := Parse([]byte("version: 1\n" + text)); err == nil {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

// TestDefaultKernelFunctions: what is handed credentials, keys or what is sent is not among them, and neither is a pattern.
func TestDefaultKernelFunctions(t *testing.T) {
	for _, name := range Default().Kernel.Functions {
		if strings.ContainsAny(name, "*?") {
			t.Errorf("%s is a pattern", name)
		}
		for _, word := range []string{"cred", "key", "crypt", "setxattr", "sendmsg", "recvmsg", "vfs_read", "vfs_write", "tty"} {
			if strings.Contains(name, word) {
				t.Errorf("%s has %q in its name", name, word)
			}
		}
	}
}

func TestKernelTargets(t *testing.T) {
	number := target.Value{Path: "code", Kind: target.KindInt, Size: 8}
	text := target.Value{Path: "name", Kind: target.KindCString}
	field := target.Value{Path: "sk.port", Kind: target.KindUint, Size: 2, Data: target.Location{Offsets: []int64{12}}}
	gone := target.Value{Path: "name", Kind: target.KindCString, Missing: "not allowed"}
	c := Default()
	reading := Default()
	reading.Kernel.ReadMemory = true
	none := Default()
	none.Kernel.Functions = nil
	forbidding := Default()
	forbidding.ForbiddenFunctions = []string{"do_*"}
	for what, x := range map[string]struct {
		ceiling  *Ceiling
		function string
		values   []target.Value
		says     string // empty: allowed
	}{
		"a number":                 {c, "do_exit", []target.Value{number}, ""},
		"what is missing":          {c, "do_exit", []target.Value{gone}, ""},
		"text":                     {c, "do_exit", []target.Value{number, text}, "name is in memory"},
		"a field":                  {c, "tcp_connect", []target.Value{field}, "sk.port is in memory"},
		"a field, where allowed":   {reading, "tcp_connect", []target.Value{field, text}, ""},
		"another function":         {reading, "commit_creds", nil, "not on its list"},
		"a part of a name":         {c, "do_exit_more", nil, "not on its list"},
		"a node that wants none":   {none, "do_exit", nil, "functions of the kernel are not to be probed"},
		"a function forbidden too": {forbidding, "do_exit", nil, "not on its list"},
		"the list":                 {c, "", nil, ""},
		"the list, of none":        {none, "", nil, "not to be probed"},
	} {
		tgt := &target.Target{Identity: target.Identity{Kernel: "6.12"}, Function: target.Function{Name: x.function}, Values: x.values}
		errs := map[string]error{"target": x.ceiling.AllowTarget(tgt)}
		if x.function != "" && len(x.values) == 0 {
			errs["request"] = x.ceiling.Allow(&probe.Spec{Target: probe.Selector{Kind: probe.SelectKernel}, Function: x.function})
		}
		for of, err := range errs {
			p := problem.Of(err)
			if x.says == "" && err != nil || x.says != "" && (p == nil || p.Code != problem.PermissionDenied || !strings.Contains(p.Message, x.says)) {
				t.Errorf("%s (%s): %v; want %q", what, of, err, x.says)
			}
		}
	}
}

// TestKernelResults: what is behind a result is in memory as what is behind an argument is.
func TestKernelResults(t *testing.T) {
	number := target.Value{Path: "r0", Kind: target.KindInt, Size: 4}
	field := target.Value{Path: "r0.f_flags", Kind: target.KindUint, Size: 4, Data: target.Location{Offsets: []int64{8}}}
	reading := Default()
	reading.Kernel.ReadMemory = true
	for what, x := range map[string]struct {
		ceiling *Ceiling
		returns target.Returns
		allowed bool
	}{
		"a number":                   {Default(), target.Returns{Values: []target.Value{number}, Failed: &number}, true},
		"a field":                    {Default(), target.Returns{Values: []target.Value{number, field}}, false},
		"a field that tells failure": {Default(), target.Returns{Failed: &field}, false},
		"a field, where allowed":     {reading, target.Returns{Values: []target.Value{field}, Failed: &field}, true},
	} {
		err := x.ceiling.AllowTarget(&target.Target{
			Identity: target.Identity{Kernel: "6.12"}, Function: target.Function{Name: "do_filp_open"}, Returns: &x.returns,
		})
		if p := problem.Of(err); (err == nil) != x.allowed || err != nil && (p == nil || p.Code != problem.PermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

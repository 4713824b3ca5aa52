// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyhole-dev/keyhole"

// A rule says which packages may import something. Packages of this module are named from its root; a name that
// ends in "/..." stands for itself and everything below. Tests are bound by the rules between our packages, not by those
// about libraries.
type rule struct {
	what    string
	imports []string
	by      []string
	because string
}

// libraries are known to few packages each, so that they can be replaced there and nowhere else.
var libraries = []rule{
	{
		what: "eBPF",
		imports: []string{
			"github.com/cilium/ebpf", "github.com/cilium/ebpf/asm", "github.com/cilium/ebpf/features", "github.com/cilium/ebpf/link",
			"github.com/cilium/ebpf/perf", "github.com/cilium/ebpf/pin", "github.com/cilium/ebpf/ringbuf", "github.com/cilium/ebpf/rlimit",
		},
		by:      []string{"agent/loader", "bpf", "internal/testkit", "test/bench/..."},
		because: "only the loader touches the kernel; the tests and the bench look at it from outside",
	},
	{
		what:    "the kernel's types",
		imports: []string{"github.com/cilium/ebpf/btf"},
		by:      []string{"internal/kbtf", "internal/testkit", "bpf"},
		because: "one package says what a kernel function's parameters are; it reads a file and asks the kernel nothing; the linter reads our own objects",
	},
	{
		what:    "the OpenTelemetry SDK and its exporters",
		imports: []string{"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/contrib/exporters/...", "go.opentelemetry.io/otel/exporters/..."},
		by:      []string{"telemetry"},
		because: "one package decides what is exported, and by default nothing is",
	},
	{
		what:    "gRPC",
		imports: []string{"google.golang.org/grpc", "google.golang.org/grpc/..."},
		by: []string{
			"agent/control", "controlplane/server", "controlplane/authn", "controlplane/authz", "client", "proto/...", "internal/wire",
			"internal/testkit/...", "test/...",
		},
		because: "the stages pass plain values; only the ends of a connection know the connection",
	},
	{
		what:    "etcd",
		imports: []string{"go.etcd.io/..."},
		by:      []string{"controlplane/store"},
		because: "the registry speaks to a store, not to etcd",
	},
	{
		what:    "the transparency log",
		imports: []string{"github.com/transparency-dev/tessera", "github.com/transparency-dev/tessera/..."},
		by:      []string{"audit/tlog"},
		because: "audit/tlog keeps the log and verifies it; agents, which write records, carry none of it",
	},
	{
		what:    "delve and DWARF",
		imports: []string{"github.com/go-delve/...", "debug/dwarf"},
		by:      []string{"internal/debuginfo", "internal/objfile", "agent/resolve"},
		because: "bytes of a target are parsed in the inspector and nowhere else",
	},
	{
		what:    "cobra and lipgloss",
		imports: []string{"github.com/spf13/cobra", "charm.land/..."},
		by:      []string{"cmd/..."},
		because: "flags and colours end at the commands",
	},
}

// stages are the packages of the pipeline and what each may import of this module besides internal packages.
// A value goes from stage to stage; only agent, which wires them, and agent/privsep, which puts them into processes, know several.
var stages = map[string][]string{
	"agent":                 {"agent/...", "telemetry", "audit"},
	"agent/control":         {"proto/...", "audit"},
	"agent/session":         {},
	"agent/resolve":         {},
	"agent/plan":            {"bpf"},
	"agent/plan/plantest":   {"agent/plan"},
	"agent/loader":          {"agent/plan", "bpf"},
	"agent/decode":          {"agent/plan"},
	"agent/export":          {"telemetry"},
	"agent/selftest":        {"agent/plan", "agent/loader", "agent/decode"},
	"agent/privsep":         {"agent/selftest", "agent/resolve", "agent/plan", "agent/loader", "agent/decode"},
	"controlplane":          {"controlplane/...", "audit/tlog", "telemetry", "proto/..."},
	"controlplane/server":   {"controlplane/...", "audit/tlog", "proto/..."},
	"controlplane/registry": {"controlplane/store", "proto/..."},
	"controlplane/store":    {},
	"controlplane/authn":    {},
	"controlplane/authz":    {"proto/..."},
	"controlplane/ca":       {},
	"client":                {"proto/..."},
	"audit":                 {},
	"audit/tlog":            {},
	"telemetry":             {},
	"bpf":                   {},
	"proto/keyhole/v1":      {},
}

// internalTo are the internal packages that may import something of this module that is not internal.
var internalTo = map[string][]string{
	"internal/wire": {"proto/..."},
}

// impure are packages that a value-only package (internal/*) has no use for.
var impure = []string{"net/http", "google.golang.org/grpc", "net/rpc"}

type pkg struct {
	ImportPath, Name, Doc, Dir                     string
	Imports, TestImports, XTestImports             []string
	GoFiles, CgoFiles, TestGoFiles, IgnoredGoFiles []string
}

func (p pkg) name() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Dir,Imports,TestImports,XTestImports,GoFiles,CgoFiles,TestGoFiles", "./...")
	cmd.Dir = Root(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list = append(list, p)
	}
}

func TestImportsFollowTheDesign(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, violation := range violations(p) {
			t.Error(violation)
		}
	}
}

// TestRulesCatchViolations shows that the test above can fail.
func TestRulesCatchViolations(t *testing.T) {
	for _, p := range []pkg{
		{ImportPath: module + "/agent/decode", Imports: []string{"github.com/cilium/ebpf"}},
		{ImportPath: module + "/agent/decode", Imports: []string{module + "/agent/loader"}},
		{ImportPath: module + "/agent/resolve", Imports: []string{"github.com/cilium/ebpf/btf"}},
		{ImportPath: module + "/internal/kbtf", Imports: []string{"github.com/cilium/ebpf/link"}},
		{ImportPath: module + "/agent/export", Imports: []string{"go.opentelemetry.io/otel/sdk/trace"}},
		{ImportPath: module + "/agent/session", Imports: []string{"google.golang.org/grpc"}},
		{ImportPath: module + "/internal/event", Imports: []string{module + "/agent/plan"}},
		{ImportPath: module + "/internal/event", Imports: []string{"net/http"}},
		{ImportPath: module + "/agent/agentless", Imports: []string{"fmt"}},
		{ImportPath: module + "/agent/plan", TestImports: []string{module + "/cmd/keyhole"}},
	} {
		if len(violations(p)) == 0 {
			t.Errorf("nothing is said against %s importing %q", p.name(), append(p.Imports, p.TestImports...))
		}
	}
}

func violations(p pkg) []string {
	var found []string
	name := p.name()
	for _, r := range libraries {
		for _, i := range p.Imports {
			if matches(i, r.imports) && !matches(name, r.by) {
				found = append(found, name+" imports "+i+": "+r.what+" is for "+strings.Join(r.by, ", ")+" ("+r.because+")")
			}
		}
	}
	isInternal := strings.HasPrefix(name, "internal/")
	isTestkit := strings.HasPrefix(name, "internal/testkit")
	if isInternal && !isTestkit {
		for _, i := range p.Imports {
			if slices.Contains(impure, i) {
				found = append(found, name+" imports "+i+": internal packages hold values and knowledge, not connections")
			}
		}
	}
	allowed, known := stages[name]
	switch {
	case isInternal:
		allowed = internalTo[name]
		if isTestkit {
			return found
		}
	case strings.HasPrefix(name, "cmd/"):
		allowed = []string{"agent", "agent/privsep", "controlplane", "controlplane/ca", "client", "audit/tlog", "proto/...", "telemetry", "cmd/..."}
	case strings.HasPrefix(name, "test/"):
		return found
	case !known:
		return append(found, name+" is not in the table of packages: add it to the design's layout and here")
	}
	for _, i := range p.Imports {
		own, ok := strings.CutPrefix(i, module+"/")
		if ok && !strings.HasPrefix(own, "internal/") && !matches(own, allowed) {
			found = append(found, name+" imports "+own+": allowed are internal packages and "+orNone(allowed))
		}
	}
	for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
		if own, ok := strings.CutPrefix(i, module+"/"); ok && strings.HasPrefix(own, "cmd/") && !strings.HasPrefix(name, "cmd/") {
			found = append(found, name+"'s tests import "+own+": a command is tested beside it or from test/e2e")
		}
	}
	return found
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none besides"
	}
	return strings.Join(list, ", ")
}

// matches says whether a name is one of the patterns: itself, or below one that ends in "/...".
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, below := strings.CutSuffix(p, "/...")
		return name == prefix || below && strings.HasPrefix(name, prefix+"/")
	})
}

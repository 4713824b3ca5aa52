// SPDX-License-Identifier: Apache-2.0

// Package policy holds the ceiling of a node: what no grant, whoever signed it, is carried out beyond. The node's owner
// writes it into a file; the node's monitor and agent hold every request against it.
package policy

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyhole-dev/keyhole/internal/glob"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/strictyaml"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Ceiling bounds what is done on one node.
type Ceiling struct {
	MaxTTL   time.Duration
	MaxRate  uint32 // events a second
	MaxBytes uint64 // of records
	MaxHits  uint64 // events; 0: no limit

	MaxBudget  probe.Budget // of one session
	NodeBudget probe.Budget // of all sessions on the node together

	// ForbiddenExecutables and ForbiddenFunctions are patterns in which `*` stands for any run of characters.
	ForbiddenExecutables []string
	ForbiddenFunctions   []string

	// Kernel is what may be looked at of the kernel itself.
	Kernel Kernel

	// Environment is what the node is part of, such as prod. The profile of redaction is chosen by it.
	Environment string
	// Redaction makes that of every session on this node stricter.
	Redaction redact.Policy
}

// Default is the ceiling of a node that has no file.
func Default() *Ceiling {
	return &Ceiling{
		MaxTTL:             15 * time.Minute,
		MaxRate:            probe.MaxRate,
		MaxBytes:           probe.MaxBytes,
		MaxBudget:          50, // 5 % of a core
		NodeBudget:         50,
		ForbiddenFunctions: []string{"runtime/*"},
		Kernel:             Kernel{Functions: slices.Clone(defaultKernelFunctions)},
	}
}

// ours are the programs and processes that nobody looks into: what they hold is everybody's.
var (
	ourPrograms = []string{"keyhole", "keyhole-agent", "keyhole-controlplane", "keyhole-bot"}
	ourCommands = []string{"keyhole", "keyhole-monitor", "keyhole-agent", "kh-inspector", "kh-holder", "keyhole-control", "keyhole-bot"}
)

// Load reads a ceiling file; no path is the default.
func Load(file string) (*Ceiling, error) {
	if file == "" {
		return Default(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ceiling: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("ceiling %s: %w", file, err)
	}
	return c, nil
}

type ceilingFile struct {
	Version int `yaml:"version"`
	Max     struct {
		TTL   string `yaml:"ttl"`
		Rate  string `yaml:"rate"`
		Bytes uint64 `yaml:"bytes"`
		Hits  uint64 `yaml:"hits"`

		Budget     string `yaml:"budget"`
		NodeBudget string `yaml:"node_budget"`
	} `yaml:"max"`
	Forbid struct {
		Executables []string `yaml:"executables"`
		Functions   []string `yaml:"functions"`
	} `yaml:"forbid"`
	Kernel struct {
		Functions  *[]string `yaml:"functions"`
		ReadMemory bool      `yaml:"readMemory"`
	} `yaml:"kernel"`
	Environment string         `yaml:"environment"`
	Profile     redact.Profile `yaml:"profile"`
	Sets        yaml.Node      `yaml:"sets"`
	Rules       []yaml.Node    `yaml:"rules"`
}

// Parse reads a ceiling, a YAML file such as
//
//	version: 1
//	max: {ttl: 5m, rate: 100/s, bytes: 8388608, hits: 10000, budget: 2%, node_budget: 5%}
//	forbid:
//	  executables: ["/usr/sbin/*"]
//	  functions: ["crypto/*"]
//	kernel:
//	  functions: [tcp_connect, "tcp_*retransmit*"]
//	  readMemory: true
//	environment: prod
//	profile: strict
//	sets:
//	  node/host: '[a-z0-9-]+\.internal'
//	rules:
//	  - {id: node/mail, name: "*mail*", action: digest}
//	  - {id: node/all, path: "*", action: "detect:all,node/host"}
//
// What it does not say is as in Default; what it forbids is forbidden besides; the kernel's functions that it names are allowed in
// place of the default ones, and none if it names none. Unknown keys are errors.
func Parse(data []byte) (*Ceiling, error) {
	var file ceilingFile
	if err := strictyaml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != 1 {
		return nil, fmt.Errorf("version is %d; this program reads version 1", file.Version)
	}
	c := Default()
	if file.Max.TTL != "" {
		ttl, err := time.ParseDuration(file.Max.TTL)
		if err != nil || ttl < time.Second || ttl > probe.MaxTTL {
			return nil, fmt.Errorf("max.ttl %q: want a duration of 1s to %v", file.Max.TTL, probe.MaxTTL)
		}
		c.MaxTTL = ttl
	}
	if file.Max.Rate != "" {
		rate, err := probe.ParseRate(file.Max.Rate)
		if err != nil {
			return nil, fmt.Errorf("max.rate %q: want events a second, 1/s to %d/s", file.Max.Rate, probe.MaxRate)
		}
		c.MaxRate = rate
	}
	if file.Max.Bytes > probe.MaxBytes {
		return nil, fmt.Errorf("max.bytes %d: at most %d", file.Max.Bytes, probe.MaxBytes)
	}
	if file.Max.Bytes > 0 {
		c.MaxBytes = file.Max.Bytes
	}
	c.MaxHits = file.Max.Hits
	if err := c.parseBudgets(file.Max.Budget, file.Max.NodeBudget); err != nil {
		return nil, err
	}
	if slices.Contains(file.Forbid.Executables, "") || slices.Contains(file.Forbid.Functions, "") {
		return nil, errors.New("forbid: an empty pattern")
	}
	c.ForbiddenExecutables = append(c.ForbiddenExecutables, file.Forbid.Executables...)
	c.ForbiddenFunctions = append(c.ForbiddenFunctions, file.Forbid.Functions...)
	if err := file.kernel(&c.Kernel); err != nil {
		return nil, err
	}
	return c, file.redaction(c)
}

func (f *ceilingFile) redaction(c *Ceiling) error {
	if f.Environment != "" {
		if err := redact.ValidEnvironment(f.Environment); err != nil {
			return err
		}
	}
	sets, err := redact.PatternsFromYAML(&f.Sets)
	if err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	rules, err := redact.RulesFromYAML(f.Rules, "node", sets)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	c.Environment = f.Environment
	c.Redaction = redact.Policy{Profile: f.Profile, Patterns: sets, Rules: rules}
	return nil
}

// Ruleset returns an owner's rules as they are on this node: in its environment, and made stricter by the node's own.
func (c *Ceiling) Ruleset(owners *redact.Ruleset) (*redact.Ruleset, error) {
	rules, err := owners.In(c.Environment).With(&c.Redaction)
	if err != nil {
		return nil, problem.New(problem.FailedPrecondition, "this node's redaction and the control plane's do not go together: %v", err)
	}
	return rules, nil
}

// parseBudgets reads what sessions may cost. One that may cost more than all of them together would be a promise that is not
// kept, so that the smaller number holds for both unless both are said.
func (c *Ceiling) parseBudgets(one, node string) error {
	for _, b := range []struct {
		name, text string
		budget     *probe.Budget
	}{{"budget", one, &c.MaxBudget}, {"node_budget", node, &c.NodeBudget}} {
		if b.text == "" {
			continue
		}
		budget, err := probe.ParseBudget(b.text)
		if err != nil {
			return fmt.Errorf("max.%s %q: want a share of a core, such as 2%%", b.name, b.text)
		}
		*b.budget = budget
	}
	switch {
	case c.MaxBudget <= c.NodeBudget:
	case one == "":
		c.MaxBudget = c.NodeBudget
	case node == "":
		c.NodeBudget = c.MaxBudget
	default:
		return fmt.Errorf("max.budget %v is more than max.node_budget %v, which holds for all sessions together", c.MaxBudget, c.NodeBudget)
	}
	return nil
}

// Allow says why a request is over the ceiling, before anybody looks at its target. The error is a *problem.Error of code
// PermissionDenied.
func (c *Ceiling) Allow(spec *probe.Spec) error {
	l := spec.WithDefaults().Limits
	switch {
	case l.TTL > c.MaxTTL:
		return denied("--for %v: at most %v here", l.TTL, c.MaxTTL)
	case l.Rate > c.MaxRate:
		return denied("--rate %d/s: at most %d/s here", l.Rate, c.MaxRate)
	case l.MaxBytes > c.MaxBytes:
		return denied("limit of %d bytes: at most %d here", l.MaxBytes, c.MaxBytes)
	case c.MaxHits > 0 && spec.Aggregate == probe.AggregateNone && (l.MaxHits == 0 || l.MaxHits > c.MaxHits):
		return denied("--max-hits has to be given, and at most %d here", c.MaxHits)
	case l.Budget > max(c.MaxBudget, probe.DefaultBudget): // the default is bounded, not refused
		return denied("--budget %v: at most %v here", l.Budget, c.MaxBudget)
	case spec.Target.Kind == probe.SelectExe:
		return c.allowExecutable(spec.Target.Path)
	case spec.Target.Kind == probe.SelectKernel:
		return c.allowKernelFunction(spec.Function)
	}
	return nil
}

// AllowProcess says why nobody may look at a process, or at the kernel, whatever it is that is asked of it. The error is a *problem.Error of code
// PermissionDenied.
func (c *Ceiling) AllowProcess(i *target.Identity) error {
	if i.Kernel != "" {
		return c.allowKernel()
	}
	if slices.Contains(ourCommands, i.Comm) {
		return denied("process %d is %s, a part of Keyhole, and those are never probed", i.PID, i.Comm)
	}
	return c.allowExecutable(i.Path)
}

// AllowTarget says why nobody may look at what a request was resolved to. The error is a *problem.Error of code
// PermissionDenied.
func (c *Ceiling) AllowTarget(t *target.Target) error {
	if t.Identity.Kernel != "" {
		return c.allowKernelTarget(t)
	}
	if err := c.AllowProcess(&t.Identity); err != nil {
		return err
	}
	if because := Internal(t.Function.Name); because != "" {
		return denied("%s is not to be probed: %s", t.Function.Name, because)
	}
	if glob.MatchAny(c.ForbiddenFunctions, t.Function.Name) {
		return denied("the function %s is not to be probed", t.Function.Name)
	}
	return nil
}

func (c *Ceiling) allowExecutable(file string) error {
	file = strings.TrimSuffix(file, " (deleted)")
	if slices.Contains(ourPrograms, path.Base(file)) {
		return denied("%s is a part of Keyhole, and those are never probed", file)
	}
	if glob.MatchAny(c.ForbiddenExecutables, file) {
		return denied("the executable %s is not to be probed", file)
	}
	return nil
}

func denied(format string, args ...any) error {
	return problem.New(problem.PermissionDenied, "denied by this node's ceiling: "+format, args...)
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"sync"

	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxRemembered is how many sessions the judge keeps from being carried out twice.
const maxRemembered = 1 << 16

// A judge decides on this side of the privilege whether a session may be held. It believes no word of the agent, only the
// control plane's signature, the log's, and the node's own ceiling.
type judge struct {
	verifier grant.Verifier
	ceiling  *policy.Ceiling

	mu     sync.Mutex
	held   map[string]struct{}
	oldest []string // in the order in which they were held
}

func newJudge(o Options) (*judge, error) {
	verifier, err := grant.Pinned(o.GrantKeys, o.LogKey, o.Node)
	if err != nil {
		return nil, err
	}
	ceiling, err := policy.Load(o.Ceiling)
	if err != nil {
		return nil, err
	}
	return &judge{
		verifier: verifier,
		ceiling:  ceiling,
		held:     make(map[string]struct{}),
	}, nil
}

// A sentence is what the judge grants: what to probe, under which rules.
type sentence struct {
	grant *grant.Grant
	rules *redact.Ruleset
}

// judge decides about a grant for a process. A grant that it lets through is used up.
func (j *judge) judge(envelope []byte, identity target.Identity) (*sentence, error) {
	g, err := grant.Verify(envelope, j.verifier)
	if err != nil {
		return nil, err
	}
	spec := g.Spec.WithDefaults()
	g.Spec = spec
	if err := j.ceiling.Allow(&spec); err != nil {
		return nil, err
	}
	if !selects(spec.Target, identity) {
		return nil, problem.New(problem.PermissionDenied, "grant: it is not for process %d (%q)", identity.PID, identity.Path)
	}
	rules, err := j.ceiling.Ruleset(&g.Rules)
	if err != nil {
		return nil, err
	}
	return &sentence{grant: g, rules: rules}, j.remember(g.SessionID)
}

// remember refuses what was held before: a session is carried out once.
func (j *judge) remember(session string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.held[session]; ok {
		return problem.New(problem.PermissionDenied, "grant: session %s was carried out on this node before", session)
	}
	if len(j.oldest) >= maxRemembered {
		delete(j.held, j.oldest[0])
		j.oldest = j.oldest[1:]
	}
	j.held[session] = struct{}{}
	j.oldest = append(j.oldest, session)
	return nil
}

// selects says whether a request names this process.
func selects(s probe.Selector, i target.Identity) bool {
	switch s.Kind {
	case probe.SelectKernel:
		return i.Kernel != ""
	case probe.SelectPID:
		return i.Kernel == "" && s.PID == i.PID
	case probe.SelectExe:
		return i.Path == resolveLinks(s.Path)
	default:
		return false
	}
}

// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"maps"

	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func (l *Link) hello() *keyholev1.ConnectRequest {
	n := l.config.Node
	node := &keyholev1.Node{
		Name: n.Name, Version: n.Version, Kernel: n.Kernel, Arch: n.Arch, Tier: n.Tier, Why: n.Why, ProgramDigest: n.ProgramDigest,
	}
	if n.Report != nil {
		node.SelfTest, node.Findings = wire.ToSelfTest(&n.Report.SelfTest), wire.ToFindings(n.Report.Findings())
	}
	return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Hello{Hello: &keyholev1.Hello{
		Node:       node,
		SessionIds: l.handler.Live(),
		SpoolKey:   l.config.SpoolKey,
	}}}
}

// desired judges each grant of a set, those that it has judged before by comparing bytes, and hands the set on.
func (l *Link) desired(set *keyholev1.DesiredSet) {
	d := Desired{Revision: set.GetRevision(), Sessions: make([]Wanted, 0, len(set.GetGrants()))}
	ids := make(map[string]bool, len(set.GetGrants()))
	for _, g := range set.GetGrants() {
		id := g.GetSessionId()
		if ids[id] {
			continue // said twice: the first counts
		}
		ids[id] = true
		w, judged := l.grants[id]
		if !judged || !bytes.Equal(w.Envelope, g.GetEnvelope()) {
			w = l.judge(id, g.GetEnvelope())
			l.grants[id] = w
		}
		w.Stop, w.StoppedBy, w.Watched = g.GetStop(), g.GetStoppedBy(), g.GetWatched()
		d.Sessions = append(d.Sessions, w)
	}
	maps.DeleteFunc(l.grants, func(id string, _ Wanted) bool { return !ids[id] })
	l.out.forget(func(id string) bool { return ids[id] })
	l.handler.Desired(d)
}

// judge believes nothing that is not in the envelope: it must carry a grant for this very session.
func (l *Link) judge(id string, envelope []byte) Wanted {
	w := Wanted{SessionID: id, Envelope: envelope}
	g, err := grant.Verify(envelope, l.config.Grants)
	switch {
	case err != nil:
		w.Refused = problem.Of(err)
	case g.SessionID != id:
		w.Refused = problem.New(problem.PermissionDenied, "grant: it is for session %s", g.SessionID)
	default:
		w.Grant = g
	}
	return w
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// A node is one that is connected.
type node struct {
	facts     *keyholev1.Node
	poked     chan struct{} // its desired set may have changed
	questions chan *keyholev1.Question
	answers   map[string]chan<- *keyholev1.Answer
	replaced  context.CancelFunc
}

// A Connection is a node's stream as the registry sees it.
type Connection struct {
	registry *Registry
	node     *node
	name     string
}

// Connect takes note of a node. An earlier stream of the same node ends: its context is canceled by replaced.
func (r *Registry) Connect(facts *keyholev1.Node, replaced context.CancelFunc) *Connection {
	n := &node{
		facts: facts, poked: make(chan struct{}, 1), questions: make(chan *keyholev1.Question),
		answers: make(map[string]chan<- *keyholev1.Answer), replaced: replaced,
	}
	n.poked <- struct{}{}
	r.mu.Lock()
	defer r.mu.Unlock()
	if earlier := r.nodes[facts.GetName()]; earlier != nil {
		earlier.replaced()
	}
	r.nodes[facts.GetName()] = n
	return &Connection{registry: r, node: n, name: facts.GetName()}
}

// Close takes note that the stream has ended.
func (c *Connection) Close() {
	r := c.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes[c.name] == c.node {
		delete(r.nodes, c.name)
	}
	for _, answer := range c.node.answers {
		close(answer)
	}
	c.node.answers = nil
}

// Poked says that the desired set may have changed.
func (c *Connection) Poked() <-chan struct{} { return c.node.poked }

// Questions are to be sent to the node.
func (c *Connection) Questions() <-chan *keyholev1.Question { return c.node.questions }

// Desired returns the whole set of what the node should carry out.
func (c *Connection) Desired() *keyholev1.DesiredSet {
	r := c.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	set := &keyholev1.DesiredSet{Revision: r.latest}
	for _, id := range slices.Sorted(maps.Keys(r.sessions)) {
		s := r.sessions[id]
		if s.Session.GetNode() != c.name || s.Session.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
			continue
		}
		set.Grants = append(set.Grants, &keyholev1.Grant{
			SessionId: id, Envelope: s.Envelope, Stop: s.Stop, StoppedBy: s.StoppedBy, Watched: len(s.watchers) > 0,
		})
	}
	return set
}

// Answered hands an answer to whoever asked; one to a question that nobody asked is let go.
func (c *Connection) Answered(a *keyholev1.Answer) {
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	if answer, ok := c.node.answers[a.GetQuestionId()]; ok {
		delete(c.node.answers, a.GetQuestionId())
		answer <- a // has room for it
	}
}

// Ask puts a question, whose ID is the caller's to make unique, to a node and waits for its answer.
func (r *Registry) Ask(ctx context.Context, name string, q *keyholev1.Question) (*keyholev1.Answer, error) {
	away := problem.New(problem.Unavailable, "node %s is not connected; `keyhole nodes` lists those that are", name)
	answer := make(chan *keyholev1.Answer, 1)
	r.mu.Lock()
	n := r.nodes[name]
	if n == nil || n.answers == nil {
		r.mu.Unlock()
		return nil, away
	}
	n.answers[q.GetId()] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(n.answers, q.GetId())
	}()
	questions := n.questions
	for {
		select {
		case questions <- q:
			questions = nil
		case a, ok := <-answer:
			if !ok {
				return nil, away
			}
			return a, nil
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err() // whoever asked does not want to know any longer
			}
			return nil, problem.New(problem.Unavailable, "node %s did not answer in time", name)
		}
	}
}

// poke tells a node that its desired set may have changed. The registry is locked.
func (r *Registry) poke(name string) {
	if n := r.nodes[name]; n != nil {
		select {
		case n.poked <- struct{}{}:
		default: // it looks at the set as it is then
		}
	}
}

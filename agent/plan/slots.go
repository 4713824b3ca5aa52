// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A node is one address or scalar on the way to a value: what a register holds, or what is in memory behind another node.
// Values that share a way share its nodes, so c.user.email and c.user.name read c and c.user once, and see the same c.user.
type node struct {
	parent   *node
	register int   // of a node without parent
	shift    int   // of a node without parent: bytes
	off      int32 // of the others, added to the parent
	size     int   // of the others: bytes loaded
	user     bool  // of the others: from a process's memory, although the function is the kernel's

	lastUse int // index of the last step that needs it
	slot    int // while it is live; -1 before and after
}

// A step is an op whose slots are not yet given out.
type step struct {
	op       Op
	def      *node // what the op puts into op.Dst
	src, len *node // what it reads through op.Src, and op.Dst of an op on bytes
	path     string
}

// A builder collects the steps of a plan in order.
type builder struct {
	steps []step
	nodes map[nodeKey]*node
}

type nodeKey struct {
	parent          *node
	register, shift int
	off             int32
	size            int
	user            bool
}

// locate appends the steps that bring the value at a location into a node, as far as they are not there yet. size is what
// the last load reads; pointers on the way have 8 bytes.
func (b *builder) locate(l *target.Location, size int, user bool, path string) *node {
	n := b.node(nodeKey{register: l.Register, shift: l.Shift}, path)
	for i, off := range l.Offsets {
		width := 8
		if i == len(l.Offsets)-1 {
			width = size
		}
		n = b.node(nodeKey{parent: n, off: int32(off), size: width, user: user}, path)
	}
	return n
}

func (b *builder) node(key nodeKey, path string) *node {
	if n := b.nodes[key]; n != nil {
		return n
	}
	n := &node{parent: key.parent, register: key.register, shift: key.shift, off: key.off, size: key.size, user: key.user, slot: -1}
	if b.nodes == nil {
		b.nodes = make(map[nodeKey]*node)
	}
	b.nodes[key] = n
	s := step{def: n, src: n.parent, path: path}
	if n.parent == nil {
		s.op = Op{Code: OpReg, Arg: uint8(n.register), N: uint32(n.shift)}
	} else {
		s.op = Op{Code: OpLoad, Arg: uint8(n.size), Off: n.off, User: n.user}
	}
	b.steps = append(b.steps, s)
	return n
}

// test appends the step that says whether a node is not zero.
func (b *builder) test(n *node, path string) *node {
	result := &node{parent: n, slot: -1}
	b.steps = append(b.steps, step{op: Op{Code: OpTest}, def: result, src: n, path: path})
	return result
}

func (b *builder) use(op Op, src, length *node, path string) {
	b.steps = append(b.steps, step{op: op, src: src, len: length, path: path})
}

// ops gives each node the lowest slot that is free while the node is needed, and takes it back behind its last use.
func (b *builder) ops(flag string) ([]Op, error) {
	for i := range b.steps {
		for _, n := range []*node{b.steps[i].src, b.steps[i].len} {
			if n != nil {
				n.lastUse = i
			}
		}
	}
	if len(b.steps) > MaxOps {
		return nil, tooMuch(flag, b.steps[MaxOps].path, fmt.Sprintf("more than %d steps", MaxOps))
	}
	taken := make([]bool, MaxSlots)
	ops := make([]Op, 0, len(b.steps))
	for i, s := range b.steps {
		op := s.op
		if s.src != nil {
			op.Src = uint8(s.src.slot)
		}
		if s.len != nil {
			op.Dst = uint8(s.len.slot)
		}
		for _, n := range []*node{s.src, s.len} {
			if n != nil && n.lastUse == i && n.slot >= 0 {
				taken[n.slot] = false
			}
		}
		if s.def != nil {
			s.def.slot = slices.Index(taken, false)
			if s.def.slot < 0 {
				return nil, tooMuch(flag, s.path, fmt.Sprintf("more than %d addresses at once", MaxSlots))
			}
			taken[s.def.slot] = true
			op.Dst = uint8(s.def.slot)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// tooMuch says at which path a request outgrew what one probe can do.
func tooMuch(flag, path, what string) error {
	return problem.New(problem.InvalidArgument, "%s %s: with it the probe needs %s; capture fewer or shallower values in one probe", flag, path, what)
}

// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"sync"
)

// A gate stands before an SDK's batch queue. The queue drops in silence when it is full, so the gate lets in no more
// than it holds, and counts what it keeps out and what was let in and could not be exported.
type gate struct {
	size   int
	done   context.Context // of the exports
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	pending int
	lost    uint64
}

func newGate(size int) *gate {
	g := &gate{size: size}
	g.done, g.cancel = context.WithCancel(context.Background())
	return g
}

// enter takes a place for one item; false: there is none, the item is lost.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.pending == g.size {
		g.lost++
		return false
	}
	g.pending++
	return true
}

// export runs one export of n items that entered. If it fails all are lost: which of them arrived is not known.
func (g *gate) export(ctx context.Context, n int, export func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.done, cancel)()
	err := export(ctx)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending -= n
	if err != nil {
		g.lost += uint64(n)
	}
	return err
}

// shutdown lets the SDK export what waits until ctx is done, then calls off what still tries and counts it. The SDK
// itself is given no deadline: with one that has passed it leaves its goroutines and connections behind.
func (g *gate) shutdown(ctx context.Context, shutdown func(context.Context) error) error {
	defer context.AfterFunc(ctx, g.cancel)()
	err := shutdown(context.WithoutCancel(ctx))
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.lost += uint64(g.pending)
	g.pending = 0
	return errors.Join(err, ctx.Err())
}

func (g *gate) count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

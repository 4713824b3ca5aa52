// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Client is the agent's end of its connection with the monitor. Its methods may be called by several goroutines. Their errors
// are, or wrap, a *problem.Error wherever the request is at fault.
type Client struct {
	conn *conn
	done chan struct{} // closed when the monitor is gone
	err  error         // why; set before done is closed

	mu       sync.Mutex
	lastID   uint64
	waiting  map[uint64]chan answer
	children map[uint64]*news // of holders that have not ended
}

// news are what the monitor tells of a holder that nobody asked for.
type news struct {
	ended  chan ended
	forked atomic.Pointer[Forked]
}

type answer struct {
	reply reply
	file  *os.File // the child's socket, if the reply brings one
	news  *news    // of a holder
}

func newClient(c *conn) *Client {
	client := &Client{conn: c, done: make(chan struct{}), waiting: make(map[uint64]chan answer), children: make(map[uint64]*news)}
	go client.receive()
	return client
}

// receive hands out replies until the monitor is gone.
func (c *Client) receive() {
	for {
		var r reply
		files, err := c.conn.receive(&r)
		if err != nil {
			c.err = fmt.Errorf("hear from monitor: %w", err)
			close(c.done)
			return
		}
		c.dispatch(r, files)
	}
}

func (c *Client) dispatch(r reply, files []*os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Ended != nil {
		if n, ok := c.children[r.Ended.Child]; ok {
			n.ended <- *r.Ended // has room for it
			delete(c.children, r.Ended.Child)
		}
		closeFiles(files)
		return
	}
	if r.Forked != nil {
		if n, ok := c.children[r.Forked.Child]; ok {
			n.forked.Store(&r.Forked.Forked)
		}
		closeFiles(files)
		return
	}
	wait, ok := c.waiting[r.ID]
	if !ok || len(files) > 1 {
		closeFiles(files) // who asked has gone; the child sees its socket closed, and ends
		return
	}
	delete(c.waiting, r.ID)
	a := answer{reply: r}
	if len(files) == 1 {
		a.file = files[0]
	}
	if r.Held != nil {
		a.news = &news{ended: make(chan ended, 1)}
		c.children[r.Held.ID] = a.news
	}
	wait <- a // has room for it
}

// call asks the monitor and waits for its reply.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	wait := make(chan answer, 1)
	c.mu.Lock()
	c.lastID++
	r.ID = c.lastID
	c.waiting[r.ID] = wait
	c.mu.Unlock()
	if err := c.conn.send(r); err != nil {
		c.forget(r.ID, wait)
		return answer{}, fmt.Errorf("ask monitor: %w", err)
	}
	select {
	case a := <-wait:
		if a.reply.Problem != nil {
			return answer{}, a.reply.Problem
		}
		return a, nil
	case <-ctx.Done():
		c.forget(r.ID, wait)
		return answer{}, ctx.Err()
	case <-c.done:
		return answer{}, c.err
	}
}

// forget gives a request up. A reply that came meanwhile is thrown away.
func (c *Client) forget(id uint64, wait chan answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
	select {
	case a := <-wait:
		if a.file != nil {
			a.file.Close()
		}
	default:
	}
}

// An Inspection is one process that was looked up, with an inspector that has its executable open. It lasts two minutes at
// most. Its methods may not be called concurrently.
type Inspection struct {
	client    *Client
	inspected inspected
	conn      *conn
}

// Inspect looks the process up and starts an inspector for it. Close it.
func (c *Client) Inspect(ctx context.Context, s probe.Selector) (*Inspection, error) {
	a, err := c.call(ctx, request{Inspect: &s})
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	if a.reply.Inspection == nil || a.file == nil {
		return nil, errors.New("inspect: the monitor's reply holds no inspection")
	}
	return &Inspection{client: c, inspected: *a.reply.Inspection, conn: &conn{file: a.file}}, nil
}

// Identity is what the kernel says of the process: its number, start time, name and executable. What the file itself says
// (build ID, language) is in the Target.
func (i *Inspection) Identity() target.Identity { return i.inspected.Identity }

// Resolve finds the function, a safe attach point and the requested values.
func (i *Inspection) Resolve(ctx context.Context, s probe.Spec) (*target.Target, error) {
	var r resolved
	if err := i.ask(ctx, question{Resolve: &s}, &r); err != nil {
		return nil, fmt.Errorf("resolve: %w", err)
	}
	if r.Problem != nil {
		return nil, fmt.Errorf("resolve: %w", r.Problem)
	}
	if r.Target == nil {
		return nil, errors.New("resolve: the inspector's answer holds no target")
	}
	return r.Target, nil
}

// Functions lists the functions that match a pattern, at most limit of them.
func (i *Inspection) Functions(ctx context.Context, pattern string, limit int) (*resolve.Listing, error) {
	var l listed
	if err := i.ask(ctx, question{Functions: &functionsQuestion{Pattern: pattern, Limit: limit}}, &l); err != nil {
		return nil, fmt.Errorf("list functions: %w", err)
	}
	if l.Problem != nil {
		return nil, fmt.Errorf("list functions: %w", l.Problem)
	}
	if l.Listing == nil {
		return nil, errors.New("list functions: the inspector's answer holds no list")
	}
	return l.Listing, nil
}

// Compare asks whether the process's memory at the sites of what Resolve found for a request is what was analysed, or shows a breakpoint that is one of
// ours. Else it says which is not and why.
func (i *Inspection) Compare(ctx context.Context, s probe.Spec, t *target.Target) error {
	if _, err := i.client.call(ctx, request{Compare: &compareRequest{Inspection: i.inspected.ID, Spec: &s, Target: t}}); err != nil {
		return fmt.Errorf("compare sites: %w", err)
	}
	return nil
}

// Close ends the inspector. A holder that was started from the inspection goes on.
func (i *Inspection) Close() error {
	i.conn.close()
	return nil
}

// ask puts a question to the inspector, which answers one at a time.
func (i *Inspection) ask(ctx context.Context, q question, answer any) error {
	if err := i.conn.send(q); err != nil {
		return inspectorGone(err)
	}
	stop := context.AfterFunc(ctx, i.conn.close)
	defer stop()
	if _, err := i.conn.receive(answer); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return inspectorGone(err)
	}
	return nil
}

func inspectorGone(err error) error {
	return fmt.Errorf("%w (%w)", problem.New(problem.ResourceExhausted,
		"the analysis of this executable took more than %v of processor time, %d MiB of memory or %v, or the executable is malformed",
		inspectorCPU, inspectorMemory>>20, inspectionLifetime), err)
}

// SPDX-License-Identifier: Apache-2.0

// Package agent wires the stages of a node's pipeline together: control, session, and through the monitor resolve,
// plan, loader and decode, then export. It is the networked process: it holds the node's identity and no privilege, and
// what it cannot do itself it asks the monitor for. What happens to a session is decided in package session; this
// package does what is decided and reports what came of it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/keyhole-dev/keyhole/agent/control"
	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/agent/session"
	spooled "github.com/keyhole-dev/keyhole/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/keyfile"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/telemetry"
)

const (
	// maxSessions is how many sessions one node carries out at once. Each is a process, and the monitor starts no more.
	maxSessions = 64
	// countsEvery is how often counts are looked at, and reported if they moved.
	countsEvery = 500 * time.Millisecond
	// lossEvery is how often, at most, the log says how many spans were lost.
	lossEvery = 10 * time.Second
	// drainTime is how long an agent that was told to end waits for its sessions; the monitor kills what is left.
	drainTime = 5 * time.Second
	// flushTime is how long it then tries to get rid of what waits for the control plane, and for the collector.
	flushTime = 2 * time.Second
)

// Role runs an agent in the process that the monitor started for it. Its arguments are those of Config.Options.
func Role(ctx context.Context, client *privsep.Client, args []string) error {
	c, err := configFrom(args)
	if err != nil {
		return err
	}
	return Run(ctx, c, client)
}

// Run carries out what the control plane wants of this node until ctx is done. It returns an error if it cannot begin, or if
// the monitor is gone; everything that fails later is a matter of one session, or is tried again.
func Run(ctx context.Context, c Config, client *privsep.Client) error {
	limitMemory()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", c.Node)
	ceiling, err := policy.Load(c.Ceiling)
	if err != nil {
		return err
	}
	spans, err := telemetry.StartSpans(ctx, telemetry.Service{Name: "keyhole-agent", Version: version(), Node: c.Node})
	if err != nil {
		return err
	}
	defer flush(spans, log)
	metrics, err := telemetry.StartMetrics(ctx, telemetry.Service{Name: "keyhole-agent", Version: version(), Node: c.Node})
	if err != nil {
		return err
	}
	defer flushMetrics(metrics, log)
	key, err := keyfile.LoadOrMake(filepath.Join(c.StateDir, "spool.key"))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	spool, err := spooled.OpenSpool(filepath.Join(c.StateDir, "spool"), key, c.Node)
	if err != nil {
		return err
	}
	defer spool.Close()
	r := &runner{
		config: c, log: log, client: client, ceiling: ceiling, spans: spans, tracer: spans.Tracer(), metrics: metrics, spool: spool,
		machine: session.New(maxSessions), jobs: make(map[string]*job), events: make(chan session.Event, 16),
		connected: make(chan struct{}), desired: make(chan control.Desired), live: make(chan chan []string),
	}
	if err := r.closeOrphans(); err != nil {
		return err
	}
	config, err := r.linkConfig(ctx, key)
	if err != nil {
		return err
	}
	r.link = control.New(config, r, spool)
	return r.run(ctx)
}

// limitMemory tunes the collector for a process that sleeps most of the time: a small heap, and a soft limit far below
// what a queue of events can make of it. The variables GOGC and GOMEMLIMIT win.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(128 << 20)
	}
}

func flush(spans *telemetry.Spans, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	err := spans.Shutdown(ctx)
	if n := spans.Lost(); err != nil || n > 0 {
		log.Warn("telemetry: spans were lost", "spans", n, "error", err)
	}
}

func flushMetrics(metrics *telemetry.Metrics, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := metrics.Shutdown(ctx); err != nil {
		log.Warn("telemetry: metrics were lost", "error", err)
	}
}

// A runner runs the machine's effects. The goroutine of run owns machine and jobs.
type runner struct {
	config  Config
	log     *slog.Logger
	client  *privsep.Client
	ceiling *policy.Ceiling
	spans   *telemetry.Spans
	tracer  trace.Tracer
	metrics *telemetry.Metrics
	spool   *spooled.Spool
	link    *control.Link
	// unsupported is what the kernel lacks for probes; nil: nothing.
	unsupported error

	machine *session.Machine
	jobs    map[string]*job

	// What reaches run from other goroutines.
	events    chan session.Event
	connected chan struct{}
	desired   chan control.Desired
	live      chan chan []string

	lost   uint64 // spans, as last said
	lostAt time.Time

	done <-chan struct{} // closed when run takes nothing any more
}

func (r *runner) run(ctx context.Context) error {
	// The link outlives ctx: sessions end in order, and their last reports and records leave.
	var linked sync.WaitGroup
	defer linked.Wait()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.done = working.Done()
	linked.Go(func() { r.link.Run(working) })
	ticker := time.NewTicker(countsEvery)
	defer ticker.Stop()
	ending, deadline := ctx.Done(), (<-chan time.Time)(nil)
	var closed chan struct{} // the link, once all sessions are over
	for {
		select {
		case e := <-r.events:
			r.handle(e)
		case <-r.connected:
			r.handle(session.Connected{})
		case d := <-r.desired:
			r.reconcile(d)
		case reply := <-r.live:
			reply <- r.machine.Live()
		case <-ticker.C:
			r.count()
			r.sayLost()
		case <-ending:
			ending, deadline = nil, time.After(drainTime)
			r.handle(session.Draining{Cause: event.EndAgentLost})
		case <-deadline:
			return fmt.Errorf("%d sessions did not end within %v", len(r.machine.Live()), drainTime)
		case <-closed:
			return ended(ctx)
		}
		if ending == nil && closed == nil && len(r.machine.Live()) == 0 {
			deadline, closed = nil, make(chan struct{})
			go func() {
				defer close(closed)
				r.link.Close(flushTime)
			}()
		}
	}
}

// sayLost logs how many spans were lost since the agent began, when they have become more.
func (r *runner) sayLost() {
	if n := r.spans.Lost(); n > r.lost && time.Since(r.lostAt) >= lossEvery {
		r.log.Warn("telemetry: spans were lost", "spans", n)
		r.lost, r.lostAt = n, time.Now()
	}
}

// ended is why the agent ended; nil if it was asked to.
func ended(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

// post hands an event to run, from an effect.
func (r *runner) post(e session.Event) {
	select {
	case r.events <- e:
	case <-r.done:
	}
}

// handle takes one event through the machine and starts what it asks for.
func (r *runner) handle(e session.Event) {
	for _, f := range r.machine.Handle(e) {
		r.do(f)
	}
}

// do starts one effect. None of them blocks the caller.
func (r *runner) do(f session.Effect) {
	switch f := f.(type) {
	case session.Prepare:
		j := r.job(f.SessionID)
		go func() { r.post(r.prepare(j)) }()
	case session.Record:
		record := r.record(f)
		go r.append(f, record)
	case session.Hold:
		j := r.job(f.SessionID)
		go r.hold(j)
	case session.Cancel:
		r.job(f.SessionID).cancel()
	case session.Forward:
		j := r.job(f.SessionID)
		go r.forward(j, true)
	case session.Discard:
		j := r.job(f.SessionID)
		go r.forward(j, false)
	case session.Stop:
		if h := r.job(f.SessionID).holder; h != nil {
			go h.Stop(f.Cause)
		}
	case session.Release:
		if i := r.job(f.SessionID).inspection; i != nil {
			i.Close()
		}
	case session.Report:
		r.report(f.SessionID)
	}
}

// closeOrphans puts on record, before anything else, that the sessions of an agent that died are over. They are reported when
// the control plane says that it still wants them.
func (r *runner) closeOrphans() error {
	for id, endedBy := range r.spool.Finished() {
		r.machine.Handle(session.Finished{SessionID: id, EndedBy: endedBy})
	}
	for _, id := range r.spool.Open() {
		for _, f := range r.machine.Handle(session.Orphaned{SessionID: id}) {
			record, ok := f.(session.Record)
			if !ok {
				continue
			}
			written := r.record(record)
			if r.spool.IsAttaching(id) {
				written.Details[spooled.DiedWhile] = spooled.Attaching
			}
			if _, err := r.spool.Append(written); err != nil {
				return fmt.Errorf("close session %s of an agent that died: %w", id, err)
			}
			r.machine.Handle(session.Recorded{SessionID: id, Kind: record.Kind})
			r.log.Warn("closed a session of an agent that died", "session", id)
		}
	}
	return nil
}

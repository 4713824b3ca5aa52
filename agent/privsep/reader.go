// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

const (
	// lookInterval is how long a record may wait for a reader that was not woken.
	lookInterval = 50 * time.Millisecond
	// maxBatch and maxBatchBytes are how many events, of records of how many bytes, one frame holds.
	maxBatch      = 256
	maxBatchBytes = 256 << 10
	// maxQueued is how many reports wait for an agent that is slow; then records wait in the ring.
	maxQueued = 4
	// drainTime is how long an agent that takes nothing may keep a reader that has detached.
	drainTime = 5 * time.Second
)

// holderEnvironment keeps a holder small: it has one thing to do.
var holderEnvironment = append([]string{"GOMAXPROCS=2", "GOGC=50"}, raceEnvironment...)

// endCause is what the agent may give as a cause: `endedBy` is an open list.
var endCause = regexp.MustCompile(`^[a-z_]{1,32}$`)

// A reader is the unprivileged part of a holder: it reads records, decodes them and hands events to the agent until
// the session ends.
type reader struct {
	handover
	agent, monitor *conn
	records        *loader.Reader
	decoder        *decode.Decoder

	ending sync.Once
	ended  chan struct{}  // closed when the session's end was decided
	cause  string         // set before ended is closed
	why    *problem.Error // likewise: what a requester is told of an end that nobody asked for

	admitted chan struct{}   // closed when the monitor says that the node has so much left
	captures chan struct{}   // closed when the program captures
	governed chan error      // when nobody looks at the counts any more
	windows  chan []*os.File // links of the probe that was attached once more
	paused   chan error      // when nobody pauses or resumes any more

	// queue is what a goroutine of its own sends to the agent: reading and detaching must not wait for the agent.
	queue  chan report
	unsent []report // did not fit the queue when the session ended
}

func runReader() error {
	if err := errors.Join(requireNoPrivilege(), hide()); err != nil {
		return err
	}
	runtime.UnlockOSThread()
	fd, err := descriptorArgument()
	if err != nil {
		return err
	}
	r := reader{ended: make(chan struct{}), admitted: make(chan struct{}), captures: make(chan struct{}), governed: make(chan error, 1), windows: make(chan []*os.File), paused: make(chan error, 1), queue: make(chan report, maxQueued)}
	if err := takeOver(fd, &r.handover); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	defer r.records.Close()
	image, err := findImage()
	if err != nil {
		return err
	}
	image.releaseSoon()
	// Before a byte of a record is looked at, but after opening, which reads how many processors there are.
	if err := readerPolicy(r.Plan.Limits.Duty != 0).install(); err != nil {
		return err
	}
	return r.run()
}

func (r *reader) open() error {
	for _, fd := range append([]int{r.Agent, r.Monitor, r.Ring, r.Counts, r.Control}, r.Links...) {
		unix.CloseOnExec(fd)
	}
	r.agent, r.monitor = newConn(r.Agent, "agent"), newConn(r.Monitor, "monitor")
	if r.Plan.Limits.Duty != 0 {
		r.monitor.acceptFiles()
	}
	file := func(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
	files := &loader.Files{
		Ring:    file(r.Ring, "ring"),
		Counts:  file(r.Counts, "counts"),
		Control: file(r.Control, "control"),
	}
	for _, fd := range r.Links {
		files.Links = append(files.Links, file(fd, "link"))
	}
	if r.Counted != 0 {
		unix.CloseOnExec(r.Counted)
		files.Counted = file(r.Counted, "counted")
	}
	var err error
	r.records, err = loader.OpenReader(files)
	if err != nil {
		return err
	}
	r.records.TrapCost = r.Budgets.Trap
	r.records.CountsMissed = r.CountsMissed
	r.decoder = decode.New(r.Plan, decode.Meta{SessionID: r.SessionID, ProbeID: r.SessionID, Node: r.Node, Wall: wallTime})
	return nil
}

// wallTime is the time of day of a reading of the boot-time clock.
func wallTime(bootNs uint64) time.Time {
	return time.Now().Add(-time.Duration(loader.BootNow() - bootNs)).UTC()
}

// run reads until something ends the session, detaches, and says how it went. An error is told to the agent, and ends
// the session as well.
func (r *reader) run() error {
	if err := r.agent.send(report{Attached: &r.Attached}); err != nil {
		return fmt.Errorf("tell agent: %w", err)
	}
	timer, err := atBootTime(r.Attached.DeadlineNs, func() { r.end(event.EndDeadline) })
	if err != nil {
		return err
	}
	defer timer.stop()
	go r.obey()
	go r.listen()
	go func() { r.governed <- r.govern() }()
	go func() { r.paused <- r.pause() }()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		r.send()
	}()
	err = r.readAndDetach()
	if err != nil {
		r.queue <- report{Problem: problem.Of(err)}
	}
	close(r.queue)
	<-sent
	return err
}

// send sends what is queued. An agent that does not take it is gone, or as good as gone: what follows is thrown away.
func (r *reader) send() {
	for what := range r.queue {
		if r.isEnded() {
			r.limitSending()
		}
		if err := r.agent.send(what); err != nil {
			r.end(event.EndAgentLost)
		}
	}
}

func (r *reader) readAndDetach() error {
	err := r.readUntilEnd()
	if err != nil {
		r.end(event.EndHolderLost)
	}
	// What the governor has left to tell comes before what follows.
	err = errors.Join(err, <-r.paused) // whose links are there then
	if err := errors.Join(err, r.records.Detach(), <-r.governed); err != nil {
		return err
	}
	if err := r.monitor.send(notice{Detached: true}); err != nil {
		return fmt.Errorf("tell monitor: %w", err)
	}
	return r.finish()
}

func (r *reader) readUntilEnd() error {
	select {
	case <-r.captures:
	case <-r.ended:
		return nil
	}
	for !r.isEnded() {
		batch, err := r.read(time.Now().Add(lookInterval))
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			r.offer(report{Events: batch})
		}
	}
	return nil
}

// offer queues a report, or keeps it for finish if the session ends before there is room.
func (r *reader) offer(what report) {
	select {
	case r.queue <- what:
	case <-r.ended:
		r.unsent = append(r.unsent, what)
	}
}

// endAtLimit ends the session when the kernel has said that nothing more will be emitted.
func (r *reader) endAtLimit(c event.Counts) {
	limits := &r.Plan.Limits
	switch {
	case limits.MaxHits > 0 && c.Emitted >= limits.MaxHits: // what was lost does not count
		r.end(event.EndMaxHits)
	case limits.MaxBytes > 0 && c.OverLimit > 0:
		r.end(event.EndMaxBytes)
	}
}

// finish queues what was left over and what waits in the ring, then the final counts.
func (r *reader) finish() error {
	for _, what := range r.unsent {
		r.queue <- what
	}
	for {
		batch, err := r.read(time.Now())
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		r.queue <- report{Events: batch}
	}
	counts, err := r.records.Counts()
	if err != nil {
		return err
	}
	if r.Plan.Aggregate != probe.AggregateNone {
		a, err := r.aggregate(counts)
		if err != nil {
			return err
		}
		r.queue <- report{Aggregate: a}
	}
	r.queue <- report{Final: &final{Counts: counts, EndedBy: r.cause, Why: r.why}}
	return nil
}

// end decides the session's end. The first cause counts. From here on the program takes no hit; the link is closed by
// run, which an agent that does not read cannot keep from it for long.
func (r *reader) end(cause string) { r.endFor(cause, nil) }

func (r *reader) endFor(cause string, why *problem.Error) {
	r.ending.Do(func() {
		r.cause, r.why = cause, why
		_ = r.records.SetDeadline(0) // if it fails, the link's end comes a moment later
		close(r.ended)
		r.limitSending() // of what is being sent
	})
}

// limitSending gives the agent time to take one report.
func (r *reader) limitSending() {
	_ = r.agent.file.SetWriteDeadline(time.Now().Add(drainTime)) // it cannot fail on a socket
}

func (r *reader) isEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// obey does what the monitor says until that is gone: it ends the session, admits it once, and hands over the links of a probe that
// was attached once more, to whoever waits for them.
func (r *reader) obey() {
	defer close(r.windows)
	for admitted := false; ; {
		var o order
		files, err := r.monitor.receive(&o)
		if err != nil {
			r.end(event.EndAgentLost)
			return
		}
		switch {
		case o.Proceed && !admitted:
			close(r.admitted)
			admitted = true
		case o.Resumed && admitted:
			if o.Stop != "" {
				r.endFor(o.Stop, o.Problem)
			}
			r.windows <- files
		case o.Problem != nil:
			r.trip(o.Problem)
		case o.Stop != "":
			r.end(o.Stop)
		default:
			r.end(event.EndAgentLost)
		}
	}
}

// listen ends the session when the agent says so, or is gone.
func (r *reader) listen() {
	var c command
	if _, err := r.agent.receive(&c); err != nil || !endCause.MatchString(c.Stop) {
		r.end(event.EndAgentLost)
		return
	}
	r.end(c.Stop)
}

// read returns what has come by a time, as one batch.
func (r *reader) read(by time.Time) ([]event.Event, error) {
	var batch []event.Event
	for size := 0; len(batch) < maxBatch && size < maxBatchBytes; {
		record, err := r.records.Read(by)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		e, err := r.decoder.Decode(record)
		if err != nil {
			return nil, err
		}
		batch = append(batch, e)
		size += len(record)
		by = time.Now() // what is there already, but no waiting for more
	}
	return batch, nil
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/event"
)

// pollInterval is how long a record may wait unseen. The program wakes the reader for the first record, so that it is
// seen at once, and when a quarter of the ring is full, so that it is seen in time; a wake-up for every record would cost
// the target more than the rest of the probe.
const pollInterval = 50 * time.Millisecond

// A Reader is the unprivileged end of a probe. It needs no capability: the descriptors are all. Its methods are not
// safe for concurrent use, but SetDeadline, Admit and Counts may be called while another goroutine is in Read.
type Reader struct {
	// TrapCost is what the way into the program costs a hit on this node, as its self-test measured it.
	TrapCost time.Duration

	ring    *ringbuf.Reader
	ringMap *ebpf.Map
	counts  *ebpf.Map
	control *ebpf.Map
	counted *ebpf.Map   // nil: the plan counts in no groups and in no histogram
	links   []*os.File  // of entries first; none: it is detached
	gone    atomic.Bool // the links are closed
	record  ringbuf.Record

	controlling sync.Mutex
	deadline    bpf.UprobeKhDeadline // as last written

	// CountsMissed says that the link is one that knows how many calls the kernel could not run the program at: the attachment's.
	CountsMissed bool
	missed       atomic.Pointer[uint64] // nil until the link was asked
}

// OpenReader takes over the files, also when it fails.
func OpenReader(f *Files) (_ *Reader, err error) {
	if f.Ring == nil || f.Counts == nil || f.Control == nil || len(f.Links) == 0 {
		return nil, errors.Join(errors.New("open reader: a file is missing"), f.Close())
	}
	r := &Reader{links: f.Links}
	f.Links = nil
	defer func() {
		if err != nil {
			err = fmt.Errorf("open reader: %w", errors.Join(err, f.Close(), r.Close()))
		}
	}()
	if r.ringMap, err = takeMap(&f.Ring, ebpf.RingBuf); err != nil {
		return nil, err
	}
	if r.counts, err = takeMap(&f.Counts, ebpf.PerCPUArray); err != nil {
		return nil, err
	}
	if r.control, err = takeMap(&f.Control, ebpf.Array); err != nil {
		return nil, err
	}
	if f.Counted != nil {
		if r.counted, err = takeMap(&f.Counted, ebpf.Hash, ebpf.Array); err != nil {
			return nil, err
		}
	}
	if err := r.control.Lookup(uint32(0), &r.deadline); err != nil {
		return nil, fmt.Errorf("read deadline: %w", err)
	}
	if r.ring, err = ringbuf.NewReader(r.ringMap); err != nil {
		return nil, err
	}
	return r, nil
}

// takeMap makes a map of a file's descriptor and closes the file.
func takeMap(file **os.File, want ...ebpf.MapType) (*ebpf.Map, error) {
	f := *file
	*file = nil
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", f.Name(), err)
	}
	m, err := ebpf.NewMapFromFD(fd) // closes fd if it fails
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", f.Name(), err)
	}
	if !slices.Contains(want, m.Type()) {
		return nil, errors.Join(fmt.Errorf("take over %s: a map of type %s, not one of %s", f.Name(), m.Type(), want), m.Close())
	}
	return m, nil
}

// Read returns the next record, as it lies in the ring; the bytes are the reader's and last until the next Read. At the
// deadline, or at once if that has passed and no record waits, the error is os.ErrDeadlineExceeded.
func (r *Reader) Read(deadline time.Time) ([]byte, error) {
	for {
		next := time.Now().Add(pollInterval)
		if deadline.Before(next) {
			next = deadline
		}
		r.ring.SetDeadline(next)
		err := r.ring.ReadInto(&r.record)
		if err == nil {
			return r.record.RawSample, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(deadline) {
			return nil, fmt.Errorf("read record: %w", err)
		}
	}
}

// SetDeadline moves the deadline, to boot-time nanoseconds. One after the latest that the program was loaded with has
// the effect of the latest. 0 stops the probe: no hit that begins later is counted or read.
func (r *Reader) SetDeadline(bootNs uint64) error {
	if err := r.setControl(func(c *bpf.UprobeKhDeadline) { c.DeadlineNs = bootNs }); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

// Admit lets a program that was loaded with CountFirst capture from here on.
func (r *Reader) Admit() error {
	if err := r.setControl(func(c *bpf.UprobeKhDeadline) { c.Admitted = 1 }); err != nil {
		return fmt.Errorf("admit: %w", err)
	}
	return nil
}

func (r *Reader) setControl(change func(*bpf.UprobeKhDeadline)) error {
	r.controlling.Lock()
	defer r.controlling.Unlock()
	change(&r.deadline)
	return r.control.Put(uint32(0), r.deadline)
}

// Counts sums up the hits by outcome, and what they have cost. They are final after Detach.
func (r *Reader) Counts() (event.Counts, error) {
	var cpus []bpf.UprobeKhOutcomes
	if err := r.counts.Lookup(uint32(0), &cpus); err != nil {
		return event.Counts{}, fmt.Errorf("read counts: %w", err)
	}
	var n bpf.UprobeKhOutcomes
	var own uint64
	for i := range cpus {
		own += cpus[i].OwnNs
		for what, count := range cpus[i].N {
			n.N[what] += count
		}
	}
	counts := event.Counts{
		Emitted:    n.N[bpf.UprobeKhCountKH_EMITTED],
		Filtered:   n.N[bpf.UprobeKhCountKH_FILTERED],
		SampledOut: n.N[bpf.UprobeKhCountKH_SAMPLED_OUT],
		Throttled:  n.N[bpf.UprobeKhCountKH_THROTTLED],
		OverLimit:  n.N[bpf.UprobeKhCountKH_OVER_LIMIT],
		Lost:       n.N[bpf.UprobeKhCountKH_LOST],
		Unpaired: event.UnpairedCounts{
			NoRoom:         n.N[bpf.UprobeKhCountKH_NO_ROOM],
			Unwound:        n.N[bpf.UprobeKhCountKH_UNWOUND],
			GoroutineEnded: n.N[bpf.UprobeKhCountKH_GOROUTINE],
		},
		Missed: r.missed.Load(),
		CostNs: own + n.N[bpf.UprobeKhCountKH_TRAPS]*uint64(r.TrapCost),
		Final:  r.gone.Load(),
	}
	// The CPUs are read one after the other: what began to wait on the first may be seen to have waited on the second.
	if waiting, waited := n.N[bpf.UprobeKhCountKH_WAITING], n.N[bpf.UprobeKhCountKH_WAITED]; waiting > waited {
		counts.Unpaired.Waiting = waiting - waited
	}
	counts.Hits = counts.Emitted + counts.Filtered + counts.SampledOut + counts.Throttled + counts.OverLimit + counts.Lost + counts.Unpaired.Sum()
	return counts, nil
}

// Detach closes the link. If no other process holds a duplicate of it, the target's text is restored and the last hit
// is over when it returns: the kernel waits for both (bpf_link_put_direct, Linux 6.5). Records may still wait in the ring.
func (r *Reader) Detach() error {
	err := r.Pause()
	r.gone.Store(true)
	return err
}

// Pause is Detach until Resume.
func (r *Reader) Pause() error {
	var err error
	if r.CountsMissed && len(r.links) > 0 {
		err = r.askMissed() // while there is one to ask
	}
	err = errors.Join(err, closeFiles(r.links))
	r.links = nil
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// Resume takes over the links of the program that was attached once more.
func (r *Reader) Resume(links []*os.File) { r.links = links }

// askMissed reads from the link of a kprobe how often the kernel could not run it, such as inside of another probe.
func (r *Reader) askMissed() error {
	fd, err := unix.FcntlInt(r.links[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate link: %w", err)
	}
	l, err := link.NewFromFD(fd) // closes fd if it fails
	if err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	info, err := l.Info()
	if err := errors.Join(err, l.Close()); err != nil {
		return fmt.Errorf("ask link: %w", err)
	}
	if multi := info.KprobeMulti(); multi != nil {
		r.addMissed(multi.Missed)
	} else if perf := info.PerfEvent(); perf != nil && perf.Kprobe() != nil {
		r.addMissed(perf.Kprobe().Missed)
	}
	return nil
}

// addMissed adds what was missed since the last link was attached.
func (r *Reader) addMissed(n uint64) {
	if before := r.missed.Load(); before != nil {
		n += *before
	}
	r.missed.Store(&n)
}

// Close detaches and gives up all descriptors.
func (r *Reader) Close() error {
	errs := []error{r.Detach()}
	if r.ring != nil {
		errs = append(errs, r.ring.Close())
	}
	for _, m := range []*ebpf.Map{r.ringMap, r.counts, r.control, r.counted} {
		errs = append(errs, m.Close()) // of nil: nothing
	}
	return errors.Join(errs...)
}

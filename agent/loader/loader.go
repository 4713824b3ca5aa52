// SPDX-License-Identifier: Apache-2.0

// Package loader turns a plan into a probe: it fills the frozen tables of the one fixed program, has the kernel verify
// it, attaches it to one process, and reads the records. It is the only package of the agent that touches the kernel's
// eBPF. Nothing is pinned: what is loaded lives as long as a descriptor of it is open.
package loader

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Options are what a plan leaves open.
type Options struct {
	// LatestDeadlineNs is on the boot-time clock (see BootNow). The program holds it in memory that nothing can change,
	// and takes no hit at or after it.
	LatestDeadlineNs uint64
	// DeadlineNs is the deadline for now, not after the latest. Reader.SetDeadline changes it.
	DeadlineNs uint64
	// LeaveOut is the process that with all that it started is no hit of a probe of the kernel: the monitor.
	LeaveOut int
	// PerfEvents lets a probe be attached by perf events, one for each site, where the kernel has no uprobe_multi links.
	PerfEvents bool
	// RingBytes is the size of the ring buffer: a power of two, at least a page. 0 means DefaultRingBytes.
	RingBytes int
	// CountFirst makes the program count hits and read nothing until Reader.Admit. Such hits are throttled.
	CountFirst bool
}

// DefaultRingBytes is the size of a session's ring buffer where nothing else is said.
const DefaultRingBytes = 1 << 20

// waitingHeaderBytes is what a record has in front of it while it waits for its return: struct kh_waiting.
const waitingHeaderBytes = 16

// rodata is the name in the object of the section that holds the tables; configMap is the kernel's name for it.
const (
	rodata    = ".rodata"
	configMap = "kh_config"
)

// A Program is a verified instance of the program for one plan. It is attached nowhere yet.
type Program struct {
	plan    *plan.Plan
	objects objects
	// Instructions is how many the verifier processed to prove this plan; 0 where the kernel does not say.
	Instructions uint32
	// LoadTime is how long loading took, verification included.
	LoadTime time.Duration
}

// Load has the kernel verify and load the program for a plan that p.Verify accepts. The key of the digests is made
// here; this process keeps no copy of it. The error of a program that the kernel's verifier refuses is a
// *VerifierError.
func Load(p *plan.Plan, o Options) (*Program, error) {
	start := time.Now()
	if err := p.Verify(); err != nil {
		return nil, fmt.Errorf("load probe: %w", err)
	}
	if o.RingBytes == 0 {
		o.RingBytes = DefaultRingBytes
	}
	if o.RingBytes < os.Getpagesize() || bits.OnesCount(uint(o.RingBytes)) != 1 || o.RingBytes > math.MaxInt32 {
		return nil, fmt.Errorf("load probe: a ring of %d bytes: want a power of two, at least a page (%d)", o.RingBytes, os.Getpagesize())
	}
	if o.LatestDeadlineNs == 0 || o.DeadlineNs > o.LatestDeadlineNs {
		return nil, fmt.Errorf("load probe: deadline %d after the latest one %d, or none", o.DeadlineNs, o.LatestDeadlineNs)
	}
	loaded, err := load(p, o)
	if err != nil {
		return nil, fmt.Errorf("load probe: %w", err)
	}
	l := &Program{plan: p, objects: *loaded, LoadTime: time.Since(start)}
	for _, program := range l.objects.programs(p) {
		if info, err := program.Info(); err == nil {
			n, _ := info.VerifiedInstructions()
			l.Instructions += n
		}
	}
	return l, nil
}

// EntryFile is a descriptor of the program for entries, with which AttachAgain attaches it once more.
func (l *Program) EntryFile() (*os.File, error) { return duplicate(l.objects.atEntry.FD(), "program") }

// Close closes this process's descriptors of the program and its maps. An attachment keeps what it needs alive.
func (l *Program) Close() error { return l.objects.Close() }

// Stats is how often the program ran and how long it took in all, without the trap that leads to it. The kernel counts
// while kernel.bpf_stats_enabled is set.
func (l *Program) Stats() (runs uint64, took time.Duration, err error) {
	for _, program := range []*ebpf.Program{l.objects.atEntry, l.objects.atReturn} {
		stats, err := program.Stats()
		if err != nil {
			return 0, 0, fmt.Errorf("program's statistics: %w", err)
		}
		runs += stats.RunCount
		took += stats.Runtime
	}
	return runs, took, nil
}

// objects are what is loaded, without the variables, which the library would map into this process. The maps of both
// programs are the same, being of the same source.
type objects struct {
	atEntry, atReturn *ebpf.Program
	bpf.UprobeMaps
}

// programs are those that run for a plan.
func (o *objects) programs(p *plan.Plan) []*ebpf.Program {
	if p.Returns == nil {
		return []*ebpf.Program{o.atEntry}
	}
	return []*ebpf.Program{o.atEntry, o.atReturn}
}

// Close closes the descriptors.
func (o *objects) Close() error {
	return errors.Join(o.atEntry.Close(), o.atReturn.Close(), o.UprobeMaps.Close())
}

// specOf is the object that a plan is loaded with.
func specOf(p *plan.Plan, perfEvents bool) (*ebpf.CollectionSpec, error) {
	load, attachType := bpf.Uprobe, ebpf.AttachNone
	switch {
	case p.Identity.Kernel != "":
		load = bpf.Kprobe
		if hasKprobeMulti() {
			attachType = ebpf.AttachTraceKprobeMulti
		}
	case hasUprobeMulti():
		attachType = ebpf.AttachTraceUprobeMulti
	case !perfEvents:
		return nil, errNoUprobeMulti
	}
	spec, err := load()
	if err == nil {
		for _, program := range spec.Programs {
			program.AttachType = attachType
		}
		if p.Identity.Kernel != "" && !hasKretprobeMulti() {
			spec.Programs[bpf.KprobeProgKhKreturn].AttachType = ebpf.AttachNone
		}
	}
	return spec, err
}

var errNoUprobeMulti = errors.New("the kernel has no uprobe_multi links (Linux 6.6); started with --perf-events, the agent takes perf events in their place")

func load(p *plan.Plan, o Options) (*objects, error) {
	spec, err := specOf(p, o.PerfEvents)
	if err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	spec.Maps[bpf.UprobeMapKhRing].MaxEntries = uint32(o.RingBytes)
	spec.Maps[bpf.UprobeMapKhScratch].MaxEntries = uint32(cpus) * uint32(bpf.UprobeKhLimitKH_SLOTS_PER_CPU)
	spec.Maps[bpf.UprobeMapKhControl].Contents = []ebpf.MapKV{{Key: uint32(0), Value: bpf.UprobeKhDeadline{DeadlineNs: o.DeadlineNs}}}

	calls := spec.Maps[bpf.UprobeMapKhCalls]
	if p.Returns != nil {
		calls.MaxEntries = uint32(p.MaxWaitingCalls())
		calls.ValueSize = waitingHeaderBytes + uint32(p.MaxWaitingBytes())
	} else {
		calls.MaxEntries, spec.Maps[bpf.UprobeMapKhTops].MaxEntries = 1, 1
	}
	if p.Aggregate != probe.AggregateGroups {
		spec.Maps[bpf.UprobeMapKhGroups].MaxEntries = 1
	}

	image, wanted, err := p.Machines()
	if err != nil {
		return nil, fmt.Errorf("lay out the patterns: %w", err)
	}
	if err := image.Validate(); err != nil {
		return nil, fmt.Errorf("check the patterns' tables: %w", err)
	}
	setPatterns(spec.Maps[bpf.UprobeMapKhPatterns], image)
	tables, err := freezeTables(spec, configOf(p, o, image, wanted), p)
	if err != nil {
		return nil, err
	}
	defer tables.Close() // the program holds it
	loaded, err := assign(spec, p, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{rodata: tables}})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return nil, &VerifierError{Log: refused.Log, err: refused}
	}
	if err != nil {
		return nil, err
	}
	if err := loaded.KhPatterns.Freeze(); err != nil {
		return nil, errors.Join(fmt.Errorf("freeze the patterns: %w", err), loaded.Close())
	}
	return loaded, nil
}

// assign loads what a plan is loaded with.
func assign(spec *ebpf.CollectionSpec, p *plan.Plan, options *ebpf.CollectionOptions) (*objects, error) {
	if p.Identity.Kernel != "" {
		var loaded struct {
			bpf.KprobePrograms
			bpf.UprobeMaps
		}
		err := spec.LoadAndAssign(&loaded, options)
		return &objects{loaded.KhKprobe, loaded.KhKreturn, loaded.UprobeMaps}, err
	}
	var loaded struct {
		bpf.UprobePrograms
		bpf.UprobeMaps
	}
	err := spec.LoadAndAssign(&loaded, options)
	return &objects{loaded.KhUprobe, loaded.KhReturn, loaded.UprobeMaps}, err
}

// freezeTables makes the map that holds the program's constants, instead of leaving it to the library, which would map it
// into this process: this one can be read by the program alone, not through its descriptor either, and the only
// buffer here that the key was in is zeroed.
func freezeTables(spec *ebpf.CollectionSpec, c *bpf.UprobeKhConfig, p *plan.Plan) (*ebpf.Map, error) {
	m := spec.Maps[rodata]
	m.Name = configMap
	m.Flags |= unix.BPF_F_WRONLY
	m.Contents = nil
	section := make([]byte, m.ValueSize)
	defer clear(section)

	config, err := variable(spec, section, bpf.UprobeVarConfig)
	if err != nil {
		return nil, err
	}
	ops, err := variable(spec, section, bpf.UprobeVarOps)
	if err != nil {
		return nil, err
	}
	pool, err := variable(spec, section, bpf.UprobeVarPool)
	if err != nil {
		return nil, err
	}
	if _, err := binary.Encode(config, binary.NativeEndian, c); err != nil {
		return nil, fmt.Errorf("encode the configuration: %w", err)
	}
	const key = unsafe.Offsetof(bpf.UprobeKhConfig{}.Key)
	if _, err := rand.Read(config[key : key+unsafe.Sizeof(bpf.UprobeKhConfig{}.Key)]); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if _, err := binary.Encode(ops, binary.NativeEndian, opsOf(p)); err != nil {
		return nil, fmt.Errorf("encode the ops: %w", err)
	}
	copy(pool, p.Pool)

	frozen, err := ebpf.NewMap(m)
	if err != nil {
		return nil, fmt.Errorf("make map %s: %w", configMap, err)
	}
	if err := frozen.Put(uint32(0), section); err != nil {
		frozen.Close()
		return nil, fmt.Errorf("fill map %s: %w", configMap, err)
	}
	if err := frozen.Freeze(); err != nil {
		frozen.Close()
		return nil, fmt.Errorf("freeze map %s: %w", configMap, err)
	}
	return frozen, nil
}

// variable is the part of a section that a variable of the program takes.
func variable(spec *ebpf.CollectionSpec, section []byte, name string) ([]byte, error) {
	v := spec.Variables[name]
	if v == nil || uint64(v.Offset)+uint64(v.Size()) > uint64(len(section)) {
		return nil, fmt.Errorf("the object has no variable %s", name)
	}
	return section[v.Offset : v.Offset+v.Size()], nil
}

func opsOf(p *plan.Plan) *[bpf.UprobeKhLimitKH_MAX_OPS]bpf.UprobeKhOp {
	var ops [bpf.UprobeKhLimitKH_MAX_OPS]bpf.UprobeKhOp
	for i, op := range p.Ops {
		ops[i] = bpf.UprobeKhOp{
			Code:   bpf.UprobeKhOpCode(op.Code),
			Dst:    op.Dst,
			Src:    op.Src,
			Arg:    op.Arg,
			Off:    op.Off,
			N:      op.N,
			Aux:    op.Aux,
			Action: bpf.UprobeKhAction(op.Action),
		}
		if op.User {
			ops[i].User = 1
		}
	}
	return &ops
}

// configOf says everything but the key.
func configOf(p *plan.Plan, o Options, image *dfa.Image, wanted []uint32) *bpf.UprobeKhConfig {
	c := &bpf.UprobeKhConfig{
		LatestDeadlineNs: o.LatestDeadlineNs,
		StartTicks:       p.Identity.StartTicks,
		MaxHits:          p.Limits.MaxHits,
		MaxBytes:         p.Limits.MaxBytes,
		Pid:              uint32(p.Identity.PID),
		IfEnd:            uint32(p.IfEnd),
		N_ops:            uint32(len(p.Ops)),
		RingQuarter:      uint32(o.RingBytes) / 4,
		EntryEnd:         uint32(p.EntryEnd()),
		WordsMask:        uint32(len(image.Words)) - 1,
		N_machines:       uint32(len(image.Machines)),
	}
	if r := p.Returns; r != nil {
		c.ReturnIfEnd = uint32(r.IfEnd)
		c.Goid = uint32(r.GoidOffset)
		c.WaitingWords = uint32(p.MaxWaitingBytes()) / 8
		c.SlowerThanNs = uint64(r.SlowerThan)
		if !r.Decides() && p.Aggregate == probe.AggregateNone {
			c.RateAtEntry = 1
		}
		c.Pair = uint32(bpf.UprobeKhPairKH_PAIR_THREAD)
		if r.By == target.ByGoroutine {
			c.Pair = uint32(bpf.UprobeKhPairKH_PAIR_GOROUTINE)
		}
		if r.ByKernel {
			c.Popped = 1
		}
	}
	if p.Identity.Kernel != "" {
		c.Pid, c.Popped = uint32(o.LeaveOut), 1
	}
	if rate := uint64(p.Limits.Rate); rate > 0 {
		// Rounded up, so that no second sees more than the rate; a second's worth may come at once.
		c.RateIntervalNs = (uint64(time.Second) + rate - 1) / rate
		c.RateBurstNs = uint64(time.Second) - c.RateIntervalNs
	}
	copy(c.Wanted[:], wanted)
	if o.CountFirst {
		c.CountFirst = 1
	}
	if p.Limits.Sample > 1 {
		c.SampleBelow = uint32((1 << 32) / uint64(p.Limits.Sample))
	}
	if p.Stack != nil {
		c.Callers = uint32(p.Stack.Callers)
	}
	c.Aggregate = uint32(aggregates[p.Aggregate])
	if p.Aggregate == probe.AggregateHistogram && p.Fields[0].Kind == target.KindInt {
		c.IsSigned, c.UnusedBits = 1, uint32(64-8*p.Fields[0].Size)
	}
	for _, op := range p.Ops[:p.IfEnd] {
		if op.Code == plan.OpIfBytes || op.Code == plan.OpIfCStr {
			c.IfReads = 1
		}
	}
	return c
}

var aggregates = map[probe.Aggregate]bpf.UprobeKhAggregate{
	probe.AggregateNone: bpf.UprobeKhAggregateKH_EVENTS, probe.AggregateCount: bpf.UprobeKhAggregateKH_TOTAL,
	probe.AggregateGroups: bpf.UprobeKhAggregateKH_GROUPS, probe.AggregateHistogram: bpf.UprobeKhAggregateKH_HISTOGRAM,
	probe.AggregateDurations: bpf.UprobeKhAggregateKH_DURATIONS,
}

// A VerifierError is the kernel's refusal of a program. It says the last lines of the verifier's log; Log holds all.
type VerifierError struct {
	Log []string
	err error
}

func (e *VerifierError) Error() string { return e.err.Error() }

// Unwrap returns what the system call answered.
func (e *VerifierError) Unwrap() error { return e.err }

// ProgramDigest names the object that every probe of a process is an instance of: "sha256:" and its SHA-256 in hex.
func ProgramDigest() string { return bpf.UprobeDigest() }

// Digest names the object that this probe is an instance of, likewise.
func (l *Program) Digest() string {
	if l.plan.Identity.Kernel != "" {
		return bpf.KprobeDigest()
	}
	return ProgramDigest()
}

// BootNow is the time on CLOCK_BOOTTIME in nanoseconds, the clock of deadlines and records. It goes on in suspend.
func BootNow() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // there since Linux 2.6.39
	}
	return uint64(now.Nano())
}

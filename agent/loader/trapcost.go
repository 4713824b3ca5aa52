// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const (
	trapRounds = 15
	trapHits   = 128 // in each round
)

// TrapCost measures what a hit costs on this node beside the program's own time: the breakpoint, the way into the kernel
// and back, and the step over an instruction that the kernel cannot emulate. It puts the real program, which counts and
// reads nothing, on a function of this very process and calls that. The median of some rounds is taken: what the machine
// does besides makes single ones longer.
func TrapCost() (time.Duration, error) {
	cost, err := measureTrap()
	if err != nil {
		return 0, fmt.Errorf("measure a trap: %w", err)
	}
	return cost, nil
}

func measureTrap() (time.Duration, error) {
	self, site, err := selfTarget()
	if err != nil {
		return 0, err
	}
	p := &plan.Plan{Identity: *self, Sites: []target.Site{{FileOffset: site}}}
	deadline := BootNow() + uint64(time.Minute)
	loaded, err := load(p, Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: os.Getpagesize(), CountFirst: true})
	if err != nil {
		return 0, err
	}
	program := &Program{plan: p, objects: *loaded}
	defer program.Close()
	bare := median(timeRounds())
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	defer exe.Close()
	attachment, err := program.Attach(exe)
	if err != nil {
		return 0, err
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		return 0, err
	}
	reader, err := OpenReader(files)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	probed := median(timeRounds())
	counts, err := reader.Counts()
	if err != nil {
		return 0, err
	}
	if counts.Hits != trapRounds*trapHits {
		return 0, fmt.Errorf("%d calls of a function of this process made %d hits", trapRounds*trapHits, counts.Hits)
	}
	trap := probed - bare - time.Duration(counts.CostNs/counts.Hits) // with no trap cost set that is the program's own time
	if trap <= 0 {
		return 0, errors.New("it costs less than nothing")
	}
	return trap, nil
}

// timeRounds calls the function that is probed and returns what a call took in each round.
func timeRounds() []time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rounds := make([]time.Duration, trapRounds)
	var n uint64
	for i := range rounds {
		start := time.Now()
		for range trapHits {
			n = trapped(n)
		}
		rounds[i] = time.Since(start) / trapHits
	}
	return rounds
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// trapped is one instruction, which the kernel steps over out of line, and a return.
//
//go:noinline
//go:nosplit
//go:norace
func trapped(n uint64) uint64 { return n + 1 }

// selfTarget is this process, and where in its executable the function trapped begins.
func selfTarget() (*target.Identity, uint64, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil, 0, err
	}
	s, err := procfs.ParseStat(stat)
	if err != nil {
		return nil, 0, err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, 0, err
	}
	mappings, err := procfs.ParseMaps(maps)
	if err != nil {
		return nil, 0, err
	}
	address := uint64(runtime.FuncForPC(reflect.ValueOf(trapped).Pointer()).Entry())
	for _, m := range mappings {
		if m.Start <= address && address < m.End {
			return &target.Identity{PID: os.Getpid(), StartTicks: s.StartTicks}, address - m.Start + m.Offset, nil
		}
	}
	return nil, 0, fmt.Errorf("no mapping has the address %#x", address)
}

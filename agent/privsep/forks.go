// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A child that is forked while a probe is on inherits the breakpoint with the memory that it is in. The kernel does not run the program for
// it, but it pays for each trap, until it executes something or the probe is detached. Nothing tells of it, so the monitor looks.

const (
	// forksInterval is how often it looks. Children that live shorter than that may go unseen.
	forksInterval = time.Second
	// maxForked is how many such children may live at once, and maxForkedEver how many a session may meet, before the target is let go.
	maxForked     = 32
	maxForkedEver = 256
	// maxListed is how many of them are listed.
	maxListed = 16
	// maxFamily bounds the descendants of one target that are looked at.
	maxFamily = 4096
)

// Forked are the children of a target that have inherited its breakpoints.
type Forked struct {
	PIDs []int `json:"pids,omitempty"` // that live, the lowest numbers
	Sum  int   `json:"sum"`            // that were ever seen
}

// A kin is a descendant of a target.
type kin struct {
	clean     bool // it has not inherited, or not any more, and never will
	inherited bool
}

// A genealogist knows the processes of the machine since it first looked.
type genealogist struct {
	known map[int]bool // and looked at
}

// watchForks looks for children of targets until the monitor ends.
func (m *monitor) watchForks() {
	var g genealogist
	for range time.Tick(forksInterval) {
		m.mu.Lock()
		holds := slices.DeleteFunc(slices.Collect(maps.Values(m.holds)), func(h *hold) bool { return h.subject.isKernel() || !h.isAttached() })
		m.mu.Unlock()
		if len(holds) == 0 {
			g.known = nil
			continue
		}
		g.look(holds)
		for _, h := range holds {
			m.tellForks(h)
		}
	}
}

// look adds the children that are new to the families that they are of.
func (g *genealogist) look(holds []*hold) {
	pids, err := allProcesses()
	if err != nil {
		return // the next look may be luckier
	}
	unseen := holds
	if g.known != nil {
		unseen = slices.DeleteFunc(slices.Clone(holds), func(h *hold) bool { return h.family != nil })
	}
	for _, h := range unseen {
		h.family = map[int]kin{h.subject.identity.PID: {clean: true}}
	}
	known := make(map[int]bool, len(pids))
	parents := make(map[int]int)
	for _, pid := range pids {
		known[pid] = true
		if g.known[pid] && len(unseen) == 0 {
			continue
		}
		if stat, err := readStat(pid); err == nil {
			parents[pid] = stat.Parent
		}
	}
	for _, h := range holds {
		h.adopt(parents)
		maps.DeleteFunc(h.family, func(pid int, _ kin) bool { return !known[pid] })
	}
	g.known = known
}

// adopt adds to the family who has a parent in it.
func (h *hold) adopt(parents map[int]int) {
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents {
			_, known := h.family[pid]
			if _, of := h.family[parent]; of && !known && len(h.family) < maxFamily {
				h.family[pid], grown = kin{}, true
			}
		}
	}
}

// tellForks looks which of a family have inherited breakpoints, tells the agent if they are others than before, and lets a target go that has
// too many.
func (m *monitor) tellForks(h *hold) {
	now := Forked{Sum: h.forked.Sum}
	live := 0
	h.subject.text.Lock()
	sites := h.sites // none while the session pauses
	h.subject.text.Unlock()
	for _, pid := range slices.Sorted(maps.Keys(h.family)) {
		k := h.family[pid]
		if k.clean {
			continue
		}
		inherited := hasBreakpoint(pid, sites)
		if inherited && !k.inherited {
			now.Sum++
		}
		h.family[pid] = kin{clean: !inherited, inherited: inherited}
		if inherited {
			if live++; live <= maxListed {
				now.PIDs = append(now.PIDs, pid)
			}
		}
	}
	if now.Sum != h.forked.Sum || !slices.Equal(now.PIDs, h.forked.PIDs) {
		h.forked = now
		_ = m.conn.send(reply{Forked: &forkedOf{Child: h.id, Forked: now}}) // an agent that is gone needs no news
	}
	if live > maxForked || now.Sum > maxForkedEver {
		if h.end(event.EndForks) && h.conn.send(order{Stop: event.EndForks}) != nil {
			_ = h.child.signal(unix.SIGKILL)
		}
	}
}

// hasBreakpoint says whether a process has a breakpoint where one of ours is in its parent.
func hasBreakpoint(pid int, sites []target.Site) bool {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false
	}
	defer memory.Close()
	for _, site := range sites {
		found := make([]byte, len(site.Bytes))
		if _, err := memory.ReadAt(found, int64(site.RuntimeAddress)); err == nil && isProbed(found, site.Bytes) {
			return true
		}
	}
	return false
}

func allProcesses() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

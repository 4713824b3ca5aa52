// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxCode bounds a function: what is proved about a site is proved by reading all of its function.
const maxCode = 4 << 20

// A span is a contiguous part of a function. GCC puts the unlikely part of a function elsewhere.
type span struct {
	address uint64
	text    []byte
}

// code is a function's instructions as the file has them.
type code struct {
	p     *program
	isGo  bool
	spans []span // the first begins with the function's first instruction
}

func (p *program) code(f *function) (*code, error) {
	ranges, err := p.ranges(f)
	if err != nil {
		return nil, err
	}
	c := &code{p: p, isGo: p.isGo && (f.debug == nil || f.debug.IsGo)}
	total := uint64(0)
	for _, r := range ranges {
		size := r[1] - r[0]
		if total += size; r[1] <= r[0] || total > maxCode {
			return nil, fmt.Errorf("its code is said to be %d bytes; at most %d are read", total, maxCode)
		}
		if _, err := p.file.FileOffset(r[0]); err != nil {
			return nil, err
		}
		text, err := p.file.Memory(r[0], int(size))
		if err != nil {
			return nil, err
		}
		if uint64(len(text)) < size {
			return nil, fmt.Errorf("its code is said to end at %#x, behind the segment's end", r[1])
		}
		c.spans = append(c.spans, span{r[0], text})
	}
	return c, nil
}

// ranges are where a function's code is, the part with its first instruction first.
func (p *program) ranges(f *function) ([][2]uint64, error) {
	if f.debug != nil {
		for i, r := range f.debug.Ranges {
			if r[0] == f.address {
				ranges := [][2]uint64{r}
				ranges = append(ranges, f.debug.Ranges[:i]...)
				return append(ranges, f.debug.Ranges[i+1:]...), nil
			}
		}
	}
	end := p.symbols.End(f.address)
	if end == 0 {
		return nil, errors.New("nothing says where its code ends")
	}
	// A symbol without a size is taken to end where the next one begins, which may be behind the padding of another section.
	if limit := p.file.CodeEnd(f.address); limit != 0 {
		end = min(end, limit)
	}
	ranges := [][2]uint64{{f.address, end}}
	for _, s := range p.symbols {
		if strings.HasSuffix(s.Name, ".cold") && strings.TrimSuffix(s.Name, ".cold") == f.name && s.Size > 0 {
			ranges = append(ranges, [2]uint64{s.Address, s.Address + s.Size})
		}
	}
	return ranges, nil
}

// site proves a place for a probe of the function's calls. For a Go function it is behind the stack check, since the code that makes
// the stack larger runs the function again from its first instruction; else it is the first instruction.
func (c *code) site() (target.Site, error) {
	first := c.spans[0]
	low := first.address
	if !c.isGo {
		return c.prove(low, "entry", nil)
	}
	check, ok := c.p.machine.golang.FindStackCheck(first.text, low)
	if ok && c.growsStack(check.Call) {
		back := map[uint64]bool{check.Back: true}
		site, err := c.prove(check.End, "after the stack check", back)
		if err == nil {
			return site, nil
		}
		site, atEntry := c.prove(low, "entry, since it is not proved safe after the stack check: a call that grows the stack counts twice", back)
		if atEntry != nil {
			return target.Site{}, err
		}
		return site, nil
	}
	where := "entry"
	back := c.growths()
	if len(back) > 0 {
		where = "entry, since the stack check has a shape that is not known: a call that grows the stack counts twice"
	}
	return c.prove(low, where, back)
}

// growsStack says whether a call of an address is one of runtime.morestack. Where no symbol says what is there, the shape of
// the code around it has to do.
func (c *code) growsStack(called uint64) bool {
	names := c.p.symbols.At(called)
	for _, s := range names {
		if strings.HasPrefix(s.Name, "runtime.morestack") {
			return true
		}
	}
	return len(names) == 0
}

// growths finds the jumps to the first instruction that follow a call of runtime.morestack.
func (c *code) growths() map[uint64]bool {
	jumps := make(map[uint64]bool)
	first := c.spans[0]
	grown := false
	for at := 0; at < len(first.text); {
		pc := first.address + uint64(at)
		i, ok := c.p.machine.decode(first.text[at:], pc)
		if !ok {
			return jumps
		}
		at += i.length
		switch {
		case i.flow == flowCall:
			grown = i.direct && len(c.p.symbols.At(i.to)) > 0 && c.growsStack(i.to)
		case i.flow == flowJump && i.direct && i.to == first.address && grown:
			jumps[pc] = true
		case i.flow == flowJump, i.flow == flowReturn:
			grown = false
		}
	}
	return jumps
}

const behindRepeated = ", behind a sequence that Go's runtime repeats when it stops a goroutine in it"

// prove shows that a breakpoint at an address, which is reached in a straight line from the function's first instruction, is hit once
// in each run from there and harms nothing. The jumps in back are those from runtime.morestack. Behind NOPs that a kernel
// might rewrite, and behind what may run twice in a call, the next instruction is as good.
func (c *code) prove(at uint64, where string, back map[uint64]bool) (target.Site, error) {
	first, m := c.spans[0], c.p.machine
	data, _ := m.data(c) // what is in doubt cannot be reached in a straight line
	for pc := first.address; ; {
		offset := pc - first.address
		if offset >= uint64(len(first.text)) {
			return target.Site{}, errors.New("the place for the probe is not where one of its instructions begins")
		}
		raw := first.text[offset:]
		i, ok := m.decode(raw, pc)
		if !ok || i.length > len(raw) {
			return target.Site{}, fmt.Errorf("the instruction at +%#x (% x) cannot be decoded", offset, raw[:min(len(raw), 8)])
		}
		raw = raw[:i.length]
		if pc < at {
			pc += uint64(i.length)
			continue
		}
		if pc > at {
			return target.Site{}, errors.New("the place for the probe lies inside an instruction")
		}
		if data[at] {
			return target.Site{}, errors.New("what is at the place for the probe is data that the function loads")
		}
		if n := m.rewrittenNOP(raw); n > 0 {
			pc += uint64(n)
			at = pc
			where += fmt.Sprintf(", behind a NOP of %d bytes, which kernels rewrite over what a function may keep below its stack pointer", n)
			continue
		}
		if c.isGo && m.repeated != nil && m.repeated(raw) {
			pc += uint64(i.length)
			at = pc
			if !strings.HasSuffix(where, behindRepeated) {
				where += behindRepeated
			}
			continue
		}
		if err := m.safe(raw); err != nil {
			return target.Site{}, err
		}
		if err := c.unreached(at, i.length, back); err != nil {
			return target.Site{}, err
		}
		return target.Site{Address: at, Bytes: append([]byte{}, raw...), Where: where}, nil
	}
}

// place fills in where the site is in the file and in the process.
func (p *program) place(s *target.Site) error {
	var err error
	if s.FileOffset, err = p.file.FileOffset(s.Address); err != nil {
		return err
	}
	maps, err := procfs.ParseMaps(p.in.Maps)
	if err != nil {
		return err
	}
	id := p.identity
	for _, m := range maps {
		// On filesystems with subvolumes or layers the kernel shows another device here than stat does; then the path speaks.
		if m.Inode != id.Inode || m.Device != id.Device && m.Path != id.Path {
			continue
		}
		if s.FileOffset < m.Offset || s.FileOffset-m.Offset >= m.End-m.Start || !m.Executable {
			continue
		}
		if m.Writable || !m.Private {
			return fmt.Errorf("the process maps its code at %#x writable or shared, where the kernel puts no probe", m.Start)
		}
		s.RuntimeAddress = m.Start + (s.FileOffset - m.Offset)
		return nil
	}
	return fmt.Errorf("process %d does not map the code of %s there", id.PID, id.Path)
}

// SPDX-License-Identifier: Apache-2.0

// Package plantest says in plain Go what the kernel's program does with a plan, so that tests can compare the two and can
// make records without a kernel. It follows bpf/ops.h line by line, and differs from it nowhere that a record shows.
package plantest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

// Memory is the readable memory of a process: regions by their first address. They do not touch each other.
type Memory map[uint64][]byte

// Read copies len(to) bytes from an address. Without all of them it fails, as bpf_probe_read_user does.
func (m Memory) Read(to []byte, address uint64) bool {
	for start, region := range m {
		if address >= start && address-start <= uint64(len(region)) && uint64(len(to)) <= uint64(len(region))-(address-start) {
			copy(to, region[address-start:])
			return true
		}
	}
	return len(to) == 0
}

// ReadString reads up to limit bytes before a NUL; of a longer string it returns limit bytes. It fails where memory ends before
// either. The kernel's helper is told two bytes more than are wanted, and so is this.
func (m Memory) ReadString(limit int, address uint64) ([]byte, bool) {
	var s []byte
	for i := range uint64(limit) {
		var b [1]byte
		if !m.Read(b[:], address+i) {
			return nil, false
		}
		if b[0] == 0 {
			return s, true
		}
		s = append(s, b[0])
	}
	return s, true
}

// A Hit is what the program sees when it runs.
type Hit struct {
	Registers [32]uint64 // by DWARF number
	Memory    Memory
	Key       [2]uint64 // of the digests
	TimeNs    uint64
	PID, TID  uint32
	Site      uint32
	Comm      string // at most 15 bytes
}

// Evaluate runs the ops of a verified plan. It returns the record, or false if a condition does not hold. Limits and scope
// are not its business.
func Evaluate(p *plan.Plan, hit *Hit) ([]byte, bool) {
	m := machine{plan: p, hit: hit}
	for _, op := range p.Ops[:p.IfEnd] {
		if !m.decide(op) {
			return nil, false
		}
	}
	m.out = make([]byte, plan.RecordHeaderBytes)
	for _, op := range p.Ops[p.IfEnd:] {
		m.capture(op)
	}
	binary.LittleEndian.PutUint64(m.out, hit.TimeNs)
	binary.LittleEndian.PutUint32(m.out[8:], hit.PID)
	binary.LittleEndian.PutUint32(m.out[12:], hit.TID)
	binary.LittleEndian.PutUint32(m.out[16:], hit.Site)
	binary.LittleEndian.PutUint32(m.out[20:], uint32(len(m.out)))
	copy(m.out[32:47], hit.Comm)
	return m.out, true
}

type slot struct {
	value  uint64
	reason uint8
}

type machine struct {
	plan  *plan.Plan
	hit   *Hit
	slots [plan.MaxSlots]slot
	out   []byte
}

func (m *machine) address(op plan.Op) uint64 { return m.slots[op.Src].value + uint64(int64(op.Off)) }

func (m *machine) fill(op plan.Op) {
	if op.Code == plan.OpReg {
		m.slots[op.Dst] = slot{value: m.hit.Registers[op.Arg] >> (8 * op.N)}
		return
	}
	from := m.slots[op.Src]
	if op.Code == plan.OpTest {
		if from.value != 0 {
			from.value = 1
		}
		m.slots[op.Dst] = from
		return
	}
	if from.reason == plan.ReasonOK && from.value == 0 {
		from.reason = plan.ReasonNil
	}
	var word [8]byte
	if from.reason == plan.ReasonOK && !m.hit.Memory.Read(word[:op.Arg], m.address(op)) {
		from.reason = plan.ReasonFault
	}
	m.slots[op.Dst] = slot{binary.LittleEndian.Uint64(word[:]), from.reason}
}

func (m *machine) decide(op plan.Op) bool {
	src, dst := m.slots[op.Src], m.slots[op.Dst]
	switch op.Code {
	case plan.OpIfInt:
		return src.reason == plan.ReasonOK &&
			compare(src.value, op.Arg, uint8(op.N), binary.LittleEndian.Uint64(m.plan.Pool[op.Aux:]))
	case plan.OpIfBytes:
		if src.reason != plan.ReasonOK || dst.reason != plan.ReasonOK {
			return false
		}
		equal := dst.value == uint64(op.N)
		if equal && op.N > 0 {
			got := make([]byte, op.N)
			if !m.hit.Memory.Read(got, m.address(op)) {
				return false
			}
			equal = string(got) == string(m.plan.Pool[op.Aux:int(op.Aux)+int(op.N)])
		}
		return equal == (op.Arg == plan.CmpEQ)
	case plan.OpIfCStr:
		if src.reason != plan.ReasonOK || src.value == 0 {
			return false
		}
		got, ok := m.hit.Memory.ReadString(int(op.N)+2, m.address(op))
		if !ok {
			return false
		}
		equal := string(got) == string(m.plan.Pool[op.Aux:int(op.Aux)+int(op.N)])
		return equal == (op.Arg == plan.CmpEQ)
	default:
		m.fill(op)
		return true
	}
}

func compare(a uint64, width, how uint8, b uint64) bool {
	unused := 64 - 8*uint(width)
	a, b = a<<unused, b<<unused
	less := a < b
	if how&plan.CmpSigned != 0 {
		less = int64(a) < int64(b)
	}
	switch how &^ plan.CmpSigned {
	case plan.CmpEQ:
		return a == b
	case plan.CmpNE:
		return a != b
	case plan.CmpLT:
		return less
	case plan.CmpLE:
		return less || a == b
	case plan.CmpGT:
		return !less && a != b
	default:
		return !less
	}
}

// A value on its way out.
type leaving struct {
	reason    uint8
	truncated bool
	withheld  bool
	length    uint64
	bytes     []byte
}

func (m *machine) capture(op plan.Op) {
	switch op.Code {
	case plan.OpEmit:
		m.append(m.number(op))
	case plan.OpBytes:
		m.append(m.bytes(op))
	case plan.OpCStr:
		m.append(m.cString(op))
	default:
		m.fill(op)
	}
}

func (m *machine) append(v leaving) {
	var header [plan.ValueHeaderBytes]byte
	header[0] = v.reason
	if v.truncated {
		header[1] |= plan.FlagTruncated
	}
	if v.withheld {
		header[1] |= plan.FlagWithheld
	}
	binary.LittleEndian.PutUint16(header[2:], uint16(len(v.bytes)))
	binary.LittleEndian.PutUint32(header[4:], uint32(min(v.length, math.MaxUint32)))
	m.out = append(append(m.out, header[:]...), v.bytes...)
	m.out = append(m.out, make([]byte, plan.Padded(len(v.bytes))-len(v.bytes))...)
}

func (m *machine) digest(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(nil, SipHash(m.hit.Key, b))
}

func (m *machine) number(op plan.Op) leaving {
	src := m.slots[op.Src]
	if src.reason != plan.ReasonOK {
		return leaving{reason: src.reason}
	}
	v := leaving{length: uint64(op.Arg)}
	low := binary.LittleEndian.AppendUint64(nil, src.value)[:op.Arg]
	switch op.Action {
	case plan.ActKeep:
		v.bytes = low
	case plan.ActBucket:
		v.bytes = binary.LittleEndian.AppendUint64(nil, coarse(op, src.value, &v.withheld))[:op.Arg]
	case plan.ActDigest:
		v.bytes = m.digest(low)
	}
	return v
}

// coarse is the power of two of a number, with its sign, from a magnitude on.
func coarse(op plan.Op, value uint64, withheld *bool) uint64 {
	unused := 64 - 8*op.Arg
	magnitude, sign := value<<unused>>unused, uint64(1)
	if signed := int64(value<<unused) >> unused; op.N == uint32(plan.CmpSigned) && signed < 0 {
		magnitude, sign = -uint64(signed), ^uint64(0)
	}
	*withheld = magnitude > 0 && magnitude >= uint64(op.Off)
	return sign * redact.Action{Kind: redact.Bucket, N: int(op.Off)}.Bucketed(magnitude)
}

// lengthBits is KH_LENGTH_BITS.
const lengthBits = 47

func (m *machine) bytes(op plan.Op) leaving {
	src, dst := m.slots[op.Src], m.slots[op.Dst]
	v := leaving{reason: src.reason, length: dst.value}
	if v.reason == plan.ReasonOK {
		v.reason = dst.reason
	}
	if v.reason == plan.ReasonOK && v.length>>lengthBits != 0 {
		v.reason = plan.ReasonBadLength
	}
	if v.reason == plan.ReasonOK && v.length != 0 && src.value == 0 {
		v.reason = plan.ReasonNil
	}
	if v.reason != plan.ReasonOK {
		return leaving{reason: v.reason}
	}
	v.truncated = v.length > uint64(op.N)
	from, n, part := m.address(op), min(v.length, uint64(op.N)), uint64(op.Aux)
	switch op.Action {
	case plan.ActLength:
		return v
	case plan.ActPrefix:
		n = partOf(n, part)
	case plan.ActSuffix:
		part = partOf(n, part)
		from += n - part
		n = part
		if v.truncated {
			n = 0
		}
	}
	v.bytes = make([]byte, n)
	if n > 0 && !m.hit.Memory.Read(v.bytes, from) {
		return leaving{reason: plan.ReasonFault}
	}
	switch op.Action {
	case plan.ActDigest:
		v.bytes = m.digest(v.bytes)
	case plan.ActDetect, plan.ActAllow:
		return m.search(op, v)
	}
	return v
}

// search is what leaves of a value that is searched for patterns.
func (m *machine) search(op plan.Op, v leaving) leaving {
	library, err := detect.NewLibrary(m.plan.Patterns)
	if err != nil {
		panic("plantest: the plan was verified: " + err.Error())
	}
	machines, err := library.Machines(m.plan.Sets[op.Aux])
	if err != nil {
		panic("plantest: the plan was verified: " + err.Error())
	}
	if op.Action == plan.ActDetect {
		v.bytes, v.withheld = dfa.Overwrite(v.bytes, v.truncated, machines...), slices.ContainsFunc(machines, func(m *dfa.Machine) bool {
			return len(m.Matches(v.bytes, v.truncated)) > 0
		})
		return v
	}
	if !v.truncated && slices.ContainsFunc(machines, func(m *dfa.Machine) bool { return m.Whole(v.bytes) }) {
		return v
	}
	return leaving{reason: plan.ReasonNotAllowed}
}

func (m *machine) cString(op plan.Op) leaving {
	src := m.slots[op.Src]
	if src.reason == plan.ReasonOK && src.value == 0 {
		src.reason = plan.ReasonNil
	}
	if src.reason != plan.ReasonOK {
		return leaving{reason: src.reason}
	}
	got, ok := m.hit.Memory.ReadString(int(op.N)+2, m.address(op))
	if !ok {
		return leaving{reason: plan.ReasonFault}
	}
	v := leaving{truncated: len(got) > int(op.N)}
	got = got[:min(len(got), int(op.N))]
	v.length = uint64(len(got))
	part := partOf(uint64(len(got)), uint64(op.Aux))
	switch op.Action {
	case plan.ActKeep:
		v.bytes = got
	case plan.ActDigest:
		v.bytes = m.digest(got)
	case plan.ActDetect, plan.ActAllow:
		v.bytes = got
		return m.search(op, v)
	case plan.ActPrefix:
		v.bytes = got[:part]
	case plan.ActSuffix:
		if !v.truncated {
			v.bytes = got[uint64(len(got))-part:]
		}
	}
	return v
}

// partOf is what may leave of n bytes as a prefix or a suffix: nothing if that would be all of them.
func partOf(n, part uint64) uint64 {
	if part < n {
		return part
	}
	return 0
}

// SipHash is SipHash-2-4 (Aumasson and Bernstein, 2012) of b under a key of two little-endian words.
func SipHash(key [2]uint64, b []byte) uint64 {
	v0, v1 := key[0]^0x736f6d6570736575, key[1]^0x646f72616e646f6d
	v2, v3 := key[0]^0x6c7967656e657261, key[1]^0x7465646279746573
	rounds := func(n int) {
		for range n {
			v0 += v1
			v2 += v3
			v1 = bits.RotateLeft64(v1, 13) ^ v0
			v3 = bits.RotateLeft64(v3, 16) ^ v2
			v0 = bits.RotateLeft64(v0, 32)
			v2 += v1
			v0 += v3
			v1 = bits.RotateLeft64(v1, 17) ^ v2
			v3 = bits.RotateLeft64(v3, 21) ^ v0
			v2 = bits.RotateLeft64(v2, 32)
		}
	}
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		word := binary.LittleEndian.Uint64(b)
		v3 ^= word
		rounds(2)
		v0 ^= word
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	v3 ^= last
	rounds(2)
	v0 ^= last
	v2 ^= 0xff
	rounds(4)
	return v0 ^ v1 ^ v2 ^ v3
}

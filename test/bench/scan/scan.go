// SPDX-License-Identifier: Apache-2.0

// Package scan runs what the eBPF programs do with a value, without a probe around it, on values of a test's own: in the kernel, and the same C
// compiled for this process's side of it.
package scan

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type kh_scan_request -type kh_scan_what -no-global-types Scan scan.bpf.c -- -std=gnu23 -O2 -mcpu=v3 -Wall -Wextra -Werror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// MaxValue is the longest value, in bytes.
const MaxValue = int(bpf.UprobeKhLimitKH_MAX_VALUE)

// What is done with a value.
const (
	Copy   = ScanKhScanWhatKH_SCAN_COPY
	Digest = ScanKhScanWhatKH_SCAN_DIGEST
	Detect = ScanKhScanWhatKH_SCAN_DETECT
	Allow  = ScanKhScanWhatKH_SCAN_ALLOW
)

// A Kernel is the loaded program, with machines.
type Kernel struct {
	objects ScanObjects
	slot    []byte
}

// Offsets in struct kh_slot: the value is put where a record would be, since what is searched is written over.
var (
	inputAt  = 8
	outputAt = 8 + MaxValue + 8 + 16
)

// Load loads the program with machines, for one value at a time.
func Load(machines ...*dfa.Machine) (*Kernel, error) {
	image, err := dfa.NewImage(machines)
	if err != nil {
		return nil, err
	}
	spec, err := LoadScan()
	if err != nil {
		return nil, err
	}
	spec.Maps["kh_scratch"].Flags = 0 // the test reads what it wrote
	patterns := spec.Maps["kh_patterns"]
	value := image.Bytes()
	patterns.ValueSize, patterns.Value = uint32(len(value)), nil
	patterns.Contents = []ebpf.MapKV{{Key: uint32(0), Value: value}}
	config := bpf.UprobeKhConfig{WordsMask: uint32(len(image.Words)) - 1, N_machines: uint32(len(image.Machines)), Key: Key}
	if err := spec.Variables["config"].Set(config); err != nil {
		return nil, err
	}
	k := &Kernel{slot: make([]byte, spec.Maps["kh_scratch"].ValueSize)}
	if err := spec.LoadAndAssign(&k.objects, nil); err != nil {
		return nil, err
	}
	return k, nil
}

// Key is the digests'.
var Key = [2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}

// Close unloads the program.
func (k *Kernel) Close() error { return k.objects.Close() }

// A Result is what became of a value.
type Result struct {
	Value  []byte // as it may leave
	Answer int32  // of kh_detect: not 0 if it was not done; of kh_allow: 1 if it may leave
	Digest uint64
	Each   time.Duration // mean
}

// Run does something with a value so many times, each time from the value itself. wanted are machines, by their bits.
func (k *Kernel) Run(what ScanKhScanWhat, value []byte, wanted uint32, cut bool, times int) (*Result, error) {
	if len(value) > MaxValue {
		return nil, fmt.Errorf("a value of %d bytes; at most %d", len(value), MaxValue)
	}
	clear(k.slot)
	copy(k.slot[outputAt:], value)
	if err := k.objects.KhScratch.Put(uint32(0), k.slot); err != nil {
		return nil, err
	}
	request := ScanKhScanRequest{What: uint32(what), N: uint32(len(value)), Wanted: wanted, Times: uint32(times)}
	if cut {
		request.Cut = 1
	}
	in := make([]byte, unsafe.Sizeof(request))
	if _, err := binary.Encode(in, binary.NativeEndian, request); err != nil {
		return nil, err
	}
	out := make([]byte, len(in))
	status, err := k.objects.KhScan.Run(&ebpf.RunOptions{Context: in, ContextOut: out})
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, errors.New("the program has no slot")
	}
	if _, err := binary.Decode(out, binary.NativeEndian, &request); err != nil {
		return nil, err
	}
	if err := k.objects.KhScratch.Lookup(uint32(0), k.slot); err != nil {
		return nil, err
	}
	return &Result{
		Value: append([]byte(nil), k.slot[inputAt:][:len(value)]...), Answer: request.Answer, Digest: request.Digest, Each: time.Duration(request.Ns) / time.Duration(times),
	}, nil
}

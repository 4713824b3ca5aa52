// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/frame"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A nop is a function that begins with one.
type nop struct {
	check   string // its name
	bytes   int
	address uintptr
}

// An order is what a subject is to do. Exactly one thing is asked for.
type order struct {
	Introduce bool  `json:"introduce,omitempty"`
	Filter    bool  `json:"filter,omitempty"` // the system calls, as a sandbox that does not know the kernel's newest
	Call      *call `json:"call,omitempty"`
	Rounds    int   `json:"rounds,omitempty"` // of roundHits calls each, and say what a call takes
	NOP       int   `json:"nop,omitempty"`    // call the first, the second, ... so many times
	Calls     int   `json:"calls,omitempty"`
}

type call struct {
	Number uint64 `json:"number"`
	Text   []byte `json:"text"` // with a zero at its end
	Times  uint64 `json:"times"`
	Thread bool   `json:"thread,omitempty"` // of a thread that is not the process's first
}

// An answer is what came of an order, and how the functions look at the end of it.
type answer struct {
	Identity *target.Identity `json:"identity,omitempty"`
	Sites    []target.Site    `json:"sites,omitempty"` // the site, then the NOPs
	Text     []byte           `json:"text"`            // the first bytes of each, as they are in memory
	CallNs   int64            `json:"callNs,omitempty"`
	Corrupt  uint64           `json:"corrupt,omitempty"` // of the calls of a NOP
}

const (
	// roundHits is how many calls one measurement of time takes.
	roundHits = 128
	// textBytes is how much of each function is looked at: longer than anything that a kernel writes there.
	textBytes = 11
)

// Subject is the life of a process that is there to be probed: it does what it is told through the socket until that is
// closed.
func Subject(socket io.ReadWriter) error {
	runtime.LockOSThread()
	// A return probe puts an address on the stack that Go does not know: nothing may look at the stack meanwhile. The functions
	// probed are too short for more than this to matter.
	debug.SetGCPercent(-1)
	for {
		var o order
		if err := frame.Read(socket, &o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("self-test: hear from tester: %w", err)
		}
		a, err := o.obey()
		if err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		for _, address := range addresses() {
			a.Text = append(a.Text, textAt(address)...)
		}
		if err := frame.Write(socket, a); err != nil {
			return fmt.Errorf("self-test: answer: %w", err)
		}
	}
}

func (o *order) obey() (*answer, error) {
	a := new(answer)
	switch {
	case o.Introduce:
		return introduce()
	case o.Filter:
		return a, filter()
	case o.Call != nil && o.Call.Times > 0 && len(o.Call.Text) > 0:
		o.Call.make()
	case o.Rounds > 0:
		a.CallNs = timeCalls(o.Rounds)
	case o.NOP > 0 && o.NOP <= len(nops()) && o.Calls > 0:
		a.Corrupt = callNOP(nops()[o.NOP-1].address, uint64(o.Calls))
	default:
		return nil, errors.New("an order that asks for nothing")
	}
	return a, nil
}

func (c *call) make() {
	if !c.Thread {
		callSite(c.Number, &c.Text[0], c.Times)
		return
	}
	done := make(chan struct{})
	go func() { // this goroutine keeps the first thread
		defer close(done)
		callSite(c.Number, &c.Text[0], c.Times)
	}()
	<-done
}

// timeCalls returns what a call of site takes: the median of some rounds, since what the machine does besides makes single ones
// longer.
func timeCalls(rounds int) int64 {
	text := []byte{0}
	took := make([]int64, rounds)
	for i := range took {
		start := time.Now()
		callSite(0, &text[0], roundHits)
		took[i] = int64(time.Since(start)) / roundHits
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// addresses are those of the functions that are probed.
func addresses() []uintptr {
	list := []uintptr{siteAddress()}
	for _, n := range nops() {
		list = append(list, n.address)
	}
	return list
}

func textAt(address uintptr) []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Add(nil, address)), textBytes))
}

// introduce says who this process is and where its functions are, as resolving would.
func introduce() (*answer, error) {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil, err
	}
	stat, err := procfs.ParseStat(data)
	if err != nil {
		return nil, err
	}
	if data, err = os.ReadFile("/proc/self/maps"); err != nil {
		return nil, err
	}
	maps, err := procfs.ParseMaps(data)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	file := info.Sys().(*syscall.Stat_t)
	a := &answer{Identity: &target.Identity{
		PID: os.Getpid(), StartTicks: stat.StartTicks, Comm: stat.Comm, Path: "self", Device: file.Dev, Inode: file.Ino,
		Size: info.Size(), MtimeNs: file.Mtim.Nano(), Language: "c", Arch: runtime.GOARCH,
	}}
	for _, address := range addresses() {
		s := target.Site{Address: uint64(address), RuntimeAddress: uint64(address), Bytes: textAt(address)[:1], Where: "entry"}
		for _, m := range maps {
			if m.Executable && m.Start <= s.Address && s.Address < m.End {
				s.FileOffset = s.Address - m.Start + m.Offset
			}
		}
		if s.FileOffset == 0 {
			return nil, fmt.Errorf("no mapping has the address %#x", address)
		}
		a.Sites = append(a.Sites, s)
	}
	return a, nil
}

// The system calls of x86-64 that a kernel has its own trampolines make: uretprobe from 6.11, uprobe from 6.18. Their numbers
// are none of arm64's.
const (
	callUretprobe = 335
	callUprobe    = 336
)

// filter kills this process when a filter of system calls, like that of a sandbox written before they came, is asked about the
// kernel's own. Kernels that are mended do not ask.
func filter() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: callUretprobe, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: callUprobe, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

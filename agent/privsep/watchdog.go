// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long after its deadline a holder is killed. By then its own timer has ended it, unless it is stopped or stuck.
const grace = time.Second

// A bootTimer is a timer on the boot-time clock. Deadlines are kept on it because Go's own timers stand still in suspend.
type bootTimer struct {
	file *os.File
}

// atBootTime calls f in a goroutine of its own when the boot-time clock reaches ns, unless the timer is stopped before.
func atBootTime(ns uint64, f func()) (*bootTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	at := unix.NsecToTimespec(int64(max(ns, 1))) // 0 would disarm it
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: at}, nil); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set timer: %w", err)
	}
	t := &bootTimer{file: os.NewFile(uintptr(fd), "timer")}
	go func() {
		var fired [8]byte
		if _, err := t.file.Read(fired[:]); err != nil || binary.NativeEndian.Uint64(fired[:]) == 0 {
			return // stopped
		}
		f()
	}()
	return t, nil
}

// stop ends the timer; it may have fired.
func (t *bootTimer) stop() { t.file.Close() }

// requireKernelClock fails where this process's boot-time clock is not the kernel's, by which the program knows its deadline.
func requireKernelClock() error {
	offsets, err := os.ReadFile("/proc/self/timens_offsets")
	if os.IsNotExist(err) {
		return nil // a kernel without time namespaces
	}
	if err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	for line := range bytes.Lines(offsets) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "boottime" && (string(f[1]) != "0" || string(f[2]) != "0") {
			return fmt.Errorf("the boot-time clock is shifted by %s s: start it outside of time namespaces", f[1])
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
)

// waitUntil returns when the boot-time clock shows deadlineNs, or with ctx's error when that is done. Go's timers stand still while
// the machine sleeps; this one does not.
func waitUntil(ctx context.Context, deadlineNs uint64) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make a boot-time timer: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "deadline")
	defer timer.Close()
	// A time of zero would disarm the timer.
	when := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, int64(deadlineNs)))}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &when, nil); err != nil {
		return fmt.Errorf("set a boot-time timer: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = timer.SetReadDeadline(time.Unix(1, 0)) })()
	var expirations [8]byte
	if _, err := timer.Read(expirations[:]); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("wait for a boot-time timer: %w", err)
	}
	return nil
}

// wall translates a reading of the boot-time clock into wall time, for people.
func wall(bootNs uint64) time.Time {
	return time.Now().Add(time.Duration(int64(bootNs - loader.BootNow())))
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/procfs"
)

// settled is when a process has done what it only does when it starts.
const settled = time.Second

// An image is where the executable lies in this process's memory.
type image []procfs.Mapping

func findImage() (image, error) {
	self, err := fileIDOf(selfExecutable)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	mappings, err := unchangedMappings(b)
	if err != nil {
		return nil, fmt.Errorf("find executable in memory: %w", err)
	}
	return slices.DeleteFunc(mappings, func(m procfs.Mapping) bool { return m.Inode != self.inode || m.Device != self.device }), nil
}

// release gives back the pages that only starting needed. One file is every process, and what is linked into it for one of
// them is initialised in all. The kernel takes those that are used again from its cache.
func (i image) release() {
	for _, m := range i {
		// An error leaves the pages where they are.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(m.Start), uintptr(m.End-m.Start), unix.MADV_DONTNEED)
	}
}

// releaseSoon releases the image when the process has settled.
func (i image) releaseSoon() { time.AfterFunc(settled, i.release) }

// unchangedMappings lists the mappings in /proc/PID/smaps that cannot be written to and are what is in their file. What
// the dynamic linker relocated cannot be written to any more either, but the file does not hold it.
func unchangedMappings(smaps []byte) ([]procfs.Mapping, error) {
	var list []procfs.Mapping
	var current procfs.Mapping
	for line := range bytes.Lines(smaps) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if !bytes.HasSuffix(fields[0], []byte(":")) {
			m, err := procfs.ParseMaps(line)
			if err != nil {
				return nil, err
			}
			current = m[0]
			continue
		}
		if string(fields[0]) == "Anonymous:" && len(fields) == 3 && string(fields[1]) == "0" && !current.Writable && current.Inode != 0 {
			list = append(list, current)
		}
	}
	return list, nil
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const (
	// maxPages is how many pages of a target's code one session may touch: the kernel copies each, at the target's expense.
	maxPages = 16
	// headroom is the memory that must be left to a target beside what the session takes of it.
	headroom = 1 << 20
	// maxMemoryFile bounds one file of a control group.
	maxMemoryFile = 64 << 10
)

// admitHarm says why a session at these sites would harm the process, although each is proved to be an instruction.
func (m *monitor) admitHarm(s *subject, sites []target.Site) error {
	report, err := m.able()
	if err != nil {
		return err
	}
	for _, site := range sites {
		if n := nopBytes(site.Bytes); n > 0 && !report.SelfTest.SafeNOP(n) {
			return problem.New(problem.FailedPrecondition, "site %#x: a NOP of %d bytes, on which this node's kernel lets no probe be without harm", site.Address, n)
		}
	}
	var fsys unix.Statfs_t
	if err := control(s.exe, func(fd int) error { return unix.Fstatfs(fd, &fsys) }); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", s.identity.Path, err)
	}
	if fsys.Type == unix.HUGETLBFS_MAGIC {
		return problem.New(problem.FailedPrecondition, "%s cannot be probed: its code is in huge pages (hugetlbfs), where the kernel puts no probe", s.identity.Path)
	}
	size := uint64(os.Getpagesize())
	pages := make(map[uint64]bool)
	for _, site := range sites {
		pages[site.RuntimeAddress/size] = true
		pages[(site.RuntimeAddress+uint64(len(site.Bytes))-1)/size] = true
	}
	if len(pages) > maxPages {
		return problem.New(problem.FailedPrecondition,
			"the probe would touch %d pages of the process's code; at most %d: choose a function with fewer places to probe", len(pages), maxPages)
	}
	left, group, err := memoryLeft("/", s.identity.PID)
	if err != nil {
		return s.explain(err)
	}
	if left < headroom+uint64(len(pages))*size {
		return problem.New(problem.FailedPrecondition,
			"process %d has %d KiB of memory left in its control group %s, and a probe takes some of it: give it more (at least %d KiB), or probe another replica",
			s.identity.PID, left>>10, group, (headroom+uint64(len(pages))*size)>>10)
	}
	return nil
}

// nopBytes is the length of an instruction that is a NOP of several bytes; 0: it is none.
func nopBytes(b []byte) int {
	rest := b
	for len(rest) > 0 && (rest[0] == 0x66 || rest[0] == 0x2e) {
		rest = rest[1:]
	}
	if len(rest) >= 3 && rest[0] == 0x0f && rest[1] == 0x1f {
		return len(b)
	}
	return 0
}

// memoryLeft is how much more memory a process may have before a control group that it is in is full, and that group. What the
// kernel would take back from a group's files counts as free. Without a limit it is math.MaxUint64.
func memoryLeft(root string, pid int) (left uint64, group string, err error) {
	b, err := readSmall(filepath.Join(root, fmt.Sprintf("proc/%d/cgroup", pid)))
	if err != nil {
		return 0, "", err
	}
	left = math.MaxUint64
	for line := range strings.Lines(string(b)) {
		// "0::/path" is version 2; "4:memory:/path" is version 1.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		var files *memoryFiles
		switch {
		case fields[0] == "0" && fields[1] == "":
			files = &version2
		case strings.Contains(","+fields[1]+",", ",memory,"):
			files = &version1
		default:
			continue
		}
		for _, base := range files.mounts {
			for path := filepath.Clean(fields[2]); ; path = filepath.Dir(path) {
				if n, ok := files.left(filepath.Join(root, base, path)); ok && n < left {
					left, group = n, path
				}
				if path == "/" {
					break
				}
			}
		}
	}
	return left, group, nil
}

// memoryFiles are the files in which a version of control groups says what we want to know, and where they are mounted by
// convention.
type memoryFiles struct {
	mounts               []string
	limit, used, fileKey string
}

var (
	version2 = memoryFiles{[]string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}, "memory.max", "memory.current", "inactive_file"}
	version1 = memoryFiles{[]string{"sys/fs/cgroup/memory"}, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
)

// left is what one group has left. There is nothing to say about a group without a limit, or that cannot be seen from here.
func (f *memoryFiles) left(dir string) (uint64, bool) {
	limit, err := readNumber(filepath.Join(dir, f.limit))
	if err != nil {
		return 0, false // "max", or no such file
	}
	used, err := readNumber(filepath.Join(dir, f.used))
	if err != nil {
		return 0, false
	}
	used -= min(used, statOf(filepath.Join(dir, "memory.stat"), f.fileKey))
	return limit - min(limit, used), true
}

// statOf is one number of a file with a name and a number in each line; 0 if it is not there.
func statOf(path, key string) uint64 {
	b, err := readSmall(path)
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if name, value, _ := strings.Cut(lines.Text(), " "); name == key {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func readNumber(path string) (uint64, error) {
	b, err := readSmall(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMemoryFile))
	if errors.Is(err, unix.ESRCH) {
		return nil, fs.ErrNotExist
	}
	return b, err
}

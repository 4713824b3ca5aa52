// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// inputOf looks at a running process as the monitor does.
func inputOf(t testing.TB, pid int) Input {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	maps, err := os.ReadFile(dir + "maps")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dir + "stat")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := procfs.ParseStat(b)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Readlink(dir + "exe")
	if err != nil {
		t.Fatal(err)
	}
	in := inputOfFile(t, path)
	in.Maps = maps
	in.Identity.PID, in.Identity.StartTicks, in.Identity.Comm = pid, stat.StartTicks, stat.Comm
	return in
}

// inputOfFile is an executable that nobody runs: it has no maps.
func inputOfFile(t testing.TB, path string) Input {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return Input{Exe: f, Identity: target.Identity{Path: path, Device: st.Dev, Inode: st.Ino, Size: st.Size, MtimeNs: st.Mtim.Nano()}}
}

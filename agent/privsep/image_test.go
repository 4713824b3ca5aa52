// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestReleaseImage gives the pages of this test's executable back, of which fewer are in memory then, and goes on.
func TestReleaseImage(t *testing.T) {
	before := residentFile(t)
	i, err := findImage()
	if err != nil {
		t.Fatal(err)
	}
	i.release()
	after := residentFile(t)
	if after >= before {
		t.Errorf("%d kB of files before, %d after", before, after)
	}
	t.Logf("%d kB of files before, %d after", before, after)
}

func residentFile(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}

func TestUnchangedMappings(t *testing.T) {
	const smaps = `00400000-00401000 r-xp 00000000 fe:00 77 /bin/program
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00600000-00601000 r--p 00001000 fe:00 77 /bin/program
Rss:                   4 kB
Anonymous:             4 kB
00601000-00602000 rw-p 00002000 fe:00 77 /bin/program
Anonymous:             0 kB
7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`
	list, err := unchangedMappings([]byte(smaps))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Start != 0x400000 {
		t.Errorf("%+v; want the text alone: what was relocated, can be written to or has no file stays", list)
	}
	if _, err := unchangedMappings([]byte("rubbish\n")); err == nil {
		t.Error("rubbish is read")
	}
}

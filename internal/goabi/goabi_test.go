// SPDX-License-Identifier: Apache-2.0

package goabi

import (
	"encoding/hex"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// low is where the functions of these tests begin.
const low = 0x1000

// body is what follows a check in the tests, 4 bytes, before the code that makes the stack larger.
const body = " 55 5d c3 90"

// grow saves a register, calls 0x2000, restores it and jumps back. At gives the address of its first instruction.
func grow(at int) string {
	call := 0x2000 - (at + 5 + 5)
	back := low - (at + 5 + 5 + 5 + 2)
	b := []byte{0x48, 0x89, 0x44, 0x24, 0x08, 0xe8, byte(call), byte(call >> 8), byte(call >> 16), byte(call >> 24), 0x48, 0x8b, 0x44, 0x24, 0x08, 0xeb, byte(back)}
	return hex.EncodeToString(b)
}

func TestFindStackCheck(t *testing.T) {
	for name, c := range map[string]struct {
		check string // the bytes up to the function's own code
		grow  string // instead of grow; "none" for nothing
		none  bool
	}{
		"small frame":               {check: "49 3b 66 10 76 04"},
		"small frame, system stack": {check: "49 3b 66 18 76 04"},
		"frame below 128 bytes":     {check: "4c 8d 64 24 d8 4d 3b 66 10 76 04"},
		"frame of some kilobytes":   {check: "4c 8d a4 24 70 f7 ff ff 4d 3b 66 10 76 04"},
		"large frame":               {check: "49 89 e4 49 81 ec 00 20 00 00 72 0a 4d 3b 66 10 76 04"},
		"g from thread storage":     {check: "64 48 8b 0c 25 f8 ff ff ff 48 3b 61 10 76 04"},
		"no check":                  {check: "90 90", none: true},
		"another field":             {check: "49 3b 66 20 76 04", none: true},
		"another register":          {check: "49 3b 46 10 76 04", none: true},
		"another branch":            {check: "49 3b 66 10 77 04", none: true},
		"adds to the stack pointer": {check: "4c 8d 64 24 28 4d 3b 66 10 76 04", none: true},
		"compares another":          {check: "4c 8d 64 24 d8 4d 3b 6e 10 76 04", none: true},
		"large, jumps elsewhere":    {check: "49 89 e4 49 81 ec 00 20 00 00 72 08 4d 3b 66 10 76 04", none: true},
		"grows nothing":             {check: "49 3b 66 10 76 04", grow: "c3", none: true},
		"grows and adds":            {check: "49 3b 66 10 76 04", grow: "48 ff c0 e8 00 00 00 00 eb e4", none: true},
		"does not call":             {check: "49 3b 66 10 76 04", grow: "48 89 44 24 08 eb ef", none: true},
		"jumps back elsewhere":      {check: "49 3b 66 10 76 04", grow: "e8 00 00 00 00 eb f1", none: true},
		"is cut off":                {check: "49 3b 66 10 76 04", grow: "e8 00 00", none: true},
	} {
		check, err := hex.DecodeString(strings.ReplaceAll(c.check, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		rest := c.grow
		if rest == "" {
			rest = grow(low + len(check) + 4)
		}
		text, err := hex.DecodeString(strings.ReplaceAll(c.check+body+rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := AMD64.FindStackCheck(text, low)
		want := StackCheck{End: low + uint64(len(check)), Call: 0x2000, Back: low + uint64(len(text)) - 2}
		switch {
		case ok == c.none:
			t.Errorf("%s: %+v, %v", name, got, ok)
		case ok && got != want:
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	f, err := os.Open(testkit.BuildGo(t, "test/targets/gofuncs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := Version(f); err != nil || got != strings.Fields(runtime.Version())[0] {
		t.Errorf("%q, %v; want %s", got, err, runtime.Version())
	}
	if got, err := Version(strings.NewReader("not an executable")); err == nil {
		t.Errorf("a text was built by %q", got)
	}
}

func FuzzFindStackCheck(f *testing.F) {
	text, err := hex.DecodeString(strings.ReplaceAll("49 3b 66 10 76 04"+body+grow(low+10), " ", ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, abi := range []ABI{AMD64, ARM64} {
			c, ok := abi.FindStackCheck(text, low)
			end := low + uint64(len(text))
			if ok && (c.End <= low || c.End > end || c.Back <= low || c.Back >= end) {
				t.Errorf("%+v in % x", c, text)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

// Package procfs reads what the kernel says of processes in /proc. A process chooses its own name and the names of the
// files that it maps, so that both are parsed as hostile text.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Stat is what Keyhole uses of /proc/PID/stat.
type Stat struct {
	Comm string // the main thread's name, which the process may set to anything
	// State is a letter of proc_pid_stat(5): 'Z' and 'X' are dead.
	State  byte
	Parent int // its number; 0: none
	// StartTicks is when the process started, in ticks of 1/100 s since boot. With the number it names a process for good.
	StartTicks uint64
}

// ParseStat reads the content of /proc/PID/stat. The name stands in parentheses and may itself hold parentheses and
// spaces: it ends at the last one.
func ParseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("parse stat: no name in parentheses")
	}
	// The first field behind the name is number 3.
	fields := strings.Fields(string(b[end+1:]))
	const state, parent, startTime = 3, 4, 22
	if len(fields) <= startTime-state || len(fields[0]) != 1 {
		return Stat{}, fmt.Errorf("parse stat: %d fields behind the name", len(fields))
	}
	ppid, err := strconv.Atoi(fields[parent-state])
	if err != nil {
		return Stat{}, fmt.Errorf("parse stat: parent: %w", err)
	}
	ticks, err := strconv.ParseUint(fields[startTime-state], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("parse stat: start time: %w", err)
	}
	return Stat{Comm: string(b[open+1 : end]), State: fields[0][0], Parent: ppid, StartTicks: ticks}, nil
}

// A Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64
	Offset     uint64 // in the file
	Device     uint64 // as st_dev has it
	Inode      uint64 // 0: no file
	Executable bool
	Writable   bool
	Private    bool
	Path       string // with the kernel's " (deleted)" and its \012 for a newline, if so
}

// ParseMaps reads the content of /proc/PID/maps.
func ParseMaps(b []byte) ([]Mapping, error) {
	var list []Mapping
	for n := 1; len(b) > 0; n++ {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		m, err := parseMapping(string(line))
		if err != nil {
			return nil, fmt.Errorf("parse maps: line %d: %w", n, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// parseMapping reads "55d0-55d1 r-xp 00001000 fe:01 1234     /path with spaces".
func parseMapping(line string) (Mapping, error) {
	var (
		fields [5]string
		ok     bool
		rest   = line
	)
	for i := range fields {
		fields[i], rest, ok = strings.Cut(rest, " ")
		if fields[i] == "" || !ok && i < len(fields)-1 {
			return Mapping{}, fmt.Errorf("%.80q is no mapping", line)
		}
	}
	m := Mapping{Path: strings.TrimLeft(rest, " ")}
	start, end, _ := strings.Cut(fields[0], "-")
	major, minor, _ := strings.Cut(fields[3], ":")
	mode := fields[1]
	if len(mode) != 4 {
		return Mapping{}, fmt.Errorf("%.80q: no permissions", line)
	}
	m.Writable, m.Executable, m.Private = mode[1] == 'w', mode[2] == 'x', mode[3] == 'p'
	var devMajor, devMinor uint64
	for _, number := range []struct {
		to   *uint64
		text string
		base int
	}{
		{&m.Start, start, 16}, {&m.End, end, 16}, {&m.Offset, fields[2], 16},
		{&devMajor, major, 16}, {&devMinor, minor, 16}, {&m.Inode, fields[4], 10},
	} {
		var err error
		if *number.to, err = strconv.ParseUint(number.text, number.base, 64); err != nil {
			return Mapping{}, fmt.Errorf("%.80q: %w", line, err)
		}
	}
	if m.End <= m.Start {
		return Mapping{}, fmt.Errorf("%.80q ends before it starts", line)
	}
	m.Device = device(devMajor, devMinor)
	return m, nil
}

// device packs the two numbers as glibc's makedev and stat(2) do.
func device(major, minor uint64) uint64 {
	return major&0xfff<<8 | major>>12<<44 | minor&0xff | minor>>8<<20
}

// Running lists the processes whose executable has this path, by ascending number. proc is where procfs is mounted. A
// process that may not be looked at, or that ends meanwhile, is left out.
func Running(proc, path string) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 0 {
			continue
		}
		if exe, err := os.Readlink(filepath.Join(proc, e.Name(), "exe")); err == nil && exe == path {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

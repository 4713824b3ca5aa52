// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// strangersObjects are the programs, maps and links, by kind and ID ("prog 17"), that processes hold which are not descended from
// this one: somebody else works with Keyhole on this machine. What a process of the test's left behind is held by nobody.
func strangersObjects() (map[string]bool, error) {
	held := make(map[string]bool)
	files, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return nil, err
	}
	ours := make(map[int]bool)
	for _, file := range files {
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			return nil, err
		}
		if _, known := ours[pid]; !known {
			ours[pid] = descended(pid)
		}
		if ours[pid] {
			continue
		}
		if err := objectsOf(file, held); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// descended says whether a process is this one or has it among its ancestors.
func descended(pid int) bool {
	for pid > 1 {
		if pid == os.Getpid() {
			return true
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		// The name in parentheses may hold anything; behind it come state and parent (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}

// objectsOf adds what one descriptor holds: a link holds its program, a program its maps.
func objectsOf(fdinfo string, held map[string]bool) error {
	f, err := os.Open(fdinfo)
	if err != nil {
		return nil //nolint:nilerr // the descriptor, or its process, is gone
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kind, isID := strings.CutSuffix(name, "_id")
		if !isID || kind != "prog" && kind != "map" && kind != "link" {
			continue
		}
		value = strings.TrimSpace(value)
		held[kind+" "+value] = true
		if kind != "prog" {
			continue
		}
		id, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %w", fdinfo, err)
		}
		if err := mapsOf(ebpf.ProgramID(id), held); err != nil {
			return err
		}
	}
	return nil
}

func mapsOf(id ebpf.ProgramID, held map[string]bool) error {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	maps, _ := info.MapIDs()
	for _, m := range maps {
		held[fmt.Sprintf("map %d", m)] = true
	}
	return nil
}

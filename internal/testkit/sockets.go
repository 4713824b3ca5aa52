// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// OpenDoors lists the sockets of a process that somebody else could send something to: listening TCP sockets, bound UDP
// and raw ones, and Unix sockets of every type that have a name, abstract names included. "tcp 127.0.0.1:7443",
// "unix /run/x", "unix @name". Addresses and names are those of the process's own network namespace.
func OpenDoors(t testing.TB, pid int) []string {
	t.Helper()
	inodes := socketInodes(t, pid)
	var doors []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"} {
		for _, fields := range netTable(t, pid, table) {
			const tcpListen = "0A"
			if len(fields) < 10 || !inodes[fields[9]] || strings.HasPrefix(table, "tcp") && fields[3] != tcpListen {
				continue
			}
			doors = append(doors, strings.TrimSuffix(table, "6")+" "+parseAddress(t, fields[1]))
		}
	}
	for _, fields := range netTable(t, pid, "unix") {
		if len(fields) < 7 || !inodes[fields[6]] {
			continue
		}
		const acceptsConnections = 0x10000 // __SO_ACCEPTCON of linux/net.h
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		if err != nil {
			t.Fatalf("/proc/net/unix: flags %q", fields[3])
		}
		switch {
		case len(fields) > 7:
			doors = append(doors, "unix "+fields[7])
		case flags&acceptsConnections != 0:
			doors = append(doors, "unix without a name")
		}
	}
	slices.Sort(doors)
	return slices.Compact(doors)
}

// socketInodes are the inode numbers of the sockets that a process has open.
func socketInodes(t testing.TB, pid int) map[string]bool {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("list sockets: %v", err)
	}
	inodes := make(map[string]bool)
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // closed since it was listed
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}

// netTable returns the fields of each line of /proc/PID/net/TABLE but the first. A table that this kernel lacks is empty.
func netTable(t testing.TB, pid int, table string) [][]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatalf("list sockets: %v", err)
	}
	var rows [][]string
	for line := range strings.Lines(string(data)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows[1:]
}

// parseAddress reads "0100007F:1F90": 32-bit words of the address in the machine's order, then the port.
func parseAddress(t testing.TB, s string) string {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatalf("list sockets: address %q: %v", s, err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	address, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		t.Fatalf("list sockets: address %q", s)
	}
	return netip.AddrPortFrom(address, uint16(number)).String()
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// systemFiles are what the network needs of the system: name service, certificate authorities, time zones; and what Go's
// runtime and its telemetry read of this very process and machine.
var systemFiles = []string{
	"/etc/gai.conf", "/etc/host.conf", "/etc/hosts", "/etc/localtime", "/etc/machine-id", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/os-release",
	"/etc/pki", "/etc/protocols", "/etc/resolv.conf", "/etc/services", "/etc/ssl", "/proc/self", "/proc/sys/kernel", "/proc/sys/net/core", "/run/systemd/resolve",
	"/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/usr/local/share/ca-certificates", "/usr/share/ca-certificates", "/usr/share/zoneinfo",
}

const (
	// truncationLandlock is the version of kernel 6.2, which can refuse truncation as well. A node that takes older kernels is content
	// with oldLandlock, that of 5.19; then the filter of system calls refuses what truncates by a path.
	truncationLandlock = 3
	oldLandlock        = 2

	readFile landlock.AccessFSSet = ll.AccessFSReadFile
	readDir                       = readFile | ll.AccessFSReadDir
	writeDir                      = readDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeDir |
		ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | ll.AccessFSRefer
)

// landlockConfig also keeps signals and abstract sockets within the process. Kernels before 6.12 enforce only the files.
var landlockConfig = landlock.V6.BestEffort()

// confineAgent bounds what the agent can do to files, in all of its threads: user 0 without capabilities still owns root's
// files, and may signal root's processes. It writes below stateDir only, and executes nothing.
// It returns the version that the kernel enforces.
func confineAgent(stateDir string, readOnly []string, oldKernel bool) (version int, err error) {
	if err := hide(); err != nil {
		return 0, err
	}
	least, since := truncationLandlock, "6.2"
	if oldKernel {
		least, since = oldLandlock, "5.19"
	}
	version, err = ll.LandlockGetABIVersion()
	if err != nil || version < least {
		return 0, fmt.Errorf("confine agent: this kernel does not enforce Landlock version %d (it is in Linux since %s, and may have to be named in the boot "+
			"parameter lsm=)", least, since)
	}
	rules := []landlock.Rule{landlock.PathAccess(writeDir, stateDir), landlock.PathAccess(readFile|ll.AccessFSWriteFile, os.DevNull)}
	for _, path := range append(systemFiles, readOnly...) {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return 0, fmt.Errorf("confine agent: %w", err)
		case info.IsDir():
			rules = append(rules, landlock.PathAccess(readDir, path))
		default:
			rules = append(rules, landlock.PathAccess(readFile, path))
		}
	}
	if err := landlockConfig.RestrictPaths(rules...); err != nil {
		return 0, fmt.Errorf("confine agent: %w", err)
	}
	if err := landlockConfig.RestrictScoped(); err != nil {
		return 0, fmt.Errorf("confine agent: %w", err)
	}
	return version, nil
}

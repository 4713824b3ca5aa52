// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// NamePrefix is what the name of every eBPF map and program of this project begins with.
const NamePrefix = "kh_"

// RequireRoot skips a test that needs to load eBPF programs where it cannot: not as root. Under CI=true it fails
// instead, so that a run without privilege is not taken for a pass.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root, to load eBPF programs")
	}
	t.Skip("needs root, to load eBPF programs")
}

// KernelObjects names the eBPF programs and maps with our prefix, and the links of such programs, that the kernel
// holds now: "prog 17 kh_uprobe". What a process holds that has nothing to do with this one is left out. It needs CAP_SYS_ADMIN.
// Packages that load programs are tested one after another (MainAlone), so that what is seen here belongs to the caller.
func KernelObjects(t testing.TB) []string {
	t.Helper()
	objects, err := kernelObjects()
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := strangersObjects()
	if err != nil {
		t.Fatal(err)
	}
	objects = slices.DeleteFunc(objects, func(o string) bool {
		words := strings.Fields(o)
		return strangers[words[0]+" "+words[1]] || slices.Contains(earlier, o)
	})
	slices.Sort(objects)
	return objects
}

// earlier is what the kernel held before the package's first test: a kernel that has lost count of something holds it until it is started again.
var earlier []string

func kernelObjects() ([]string, error) {
	var objects []string
	for _, list := range []func() ([]string, error){programs, maps, links} {
		found, err := list()
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// RequireNoKernelObjects fails the test unless the kernel holds nothing of ours, or stops holding it within the wait. What
// was there before, and is not the test's business, is excepted by its name.
func RequireNoKernelObjects(t testing.TB, wait time.Duration, except ...string) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		left := slices.DeleteFunc(KernelObjects(t), func(o string) bool { return slices.Contains(except, o) })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v later the kernel still holds:\n  %s", wait, strings.Join(left, "\n  "))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func programs() ([]string, error) {
	var found []string
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		id = next
		name, err := programName(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // unloaded since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		if strings.HasPrefix(name, NamePrefix) {
			found = append(found, fmt.Sprintf("prog %d %s", id, name))
		}
	}
}

func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

func maps() ([]string, error) {
	var found []string
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list maps: %w", err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // freed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("list maps: %w", err)
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			return nil, fmt.Errorf("list maps: %w", err)
		}
		if strings.HasPrefix(info.Name, NamePrefix) {
			found = append(found, fmt.Sprintf("map %d %s", id, info.Name))
		}
	}
}

func links() ([]string, error) {
	var found []string
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		name, err := programName(info.Program)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		if strings.HasPrefix(name, NamePrefix) {
			found = append(found, fmt.Sprintf("link %d of %s", info.ID, name))
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return found, nil
}

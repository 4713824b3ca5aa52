// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// programsEnvironment names a directory with the programs that tests would otherwise build, where there is no compiler:
// on the kernels that test/kernels boots.
const programsEnvironment = "KEYHOLE_TEST_PROGRAMS"

// A Source is what a program for tests is built from.
type Source struct {
	name  string
	goPkg string   // for Go: the package, from the module's root
	files []string // for C: the files, from the module's root
	flags []string
}

// GoProgram is a command of this module, as BuildGo has it.
func GoProgram(pkg string, flags ...string) Source {
	return Source{name: filepath.Base(pkg), goPkg: pkg, flags: flags}
}

// CProgram is a program of C files, as BuildC has it.
func CProgram(name string, files []string, flags ...string) Source {
	if len(flags) == 0 {
		flags = []string{"-O2", "-g"}
	}
	return Source{name: name, files: files, flags: flags}
}

// String is what tells one program from another.
func (s Source) String() string {
	return strings.Join(slices.Concat([]string{s.name, s.goPkg}, s.files, s.flags), " ")
}

// in is the program's place below a directory, by its own name: some tests look for that.
func (s Source) in(dir string) string {
	digest := sha256.Sum256([]byte(s.String()))
	return filepath.Join(dir, hex.EncodeToString(digest[:6]), s.name)
}

func (s Source) command(out string) *exec.Cmd {
	if s.goPkg == "" {
		return exec.Command("gcc", slices.Concat([]string{"-o", out}, s.flags, s.files)...)
	}
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", out}, s.flags, []string{"./" + s.goPkg})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

func (s Source) build(root, out string, cmd *exec.Cmd) error {
	if err := os.Mkdir(filepath.Dir(out), 0o700); err != nil {
		return err
	}
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return nil
}

// CrossBuild builds the program for another machine of an architecture in Go's words, which has neither compiler nor libraries, into a
// directory; there programs are found below the one that the environment names (Guest).
func (s Source) CrossBuild(t testing.TB, dir, arch string) {
	t.Helper()
	out := s.in(dir)
	cmd := s.command(out)
	if s.goPkg != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+arch)
	} else {
		compiler := map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}[arch]
		cmd = exec.Command(compiler, append(cmd.Args[1:], "-static-pie")...)
	}
	if err := s.build(Root(t), out, cmd); err != nil {
		t.Fatal(err)
	}
}

// Guest is the environment of a test on a kernel that was booted for it: programs are found in a directory, and being emulated is known.
func Guest(programs string) []string {
	return []string{programsEnvironment + "=" + programs, "CI=true"}
}

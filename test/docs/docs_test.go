// SPDX-License-Identifier: Apache-2.0

// Package docs_test types every command that README.md and docs/ tell people to type.
package docs_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// A session is a terminal at work on one document.
type session struct {
	t        *testing.T
	root     string // of the repository
	dir      string // stands for bin/ and the directories that the document makes
	replaced *strings.Replacer
	shell    *testkit.Program
}

func TestCommandsInDocuments(t *testing.T) {
	testkit.RequireRoot(t)
	root := testkit.Root(t)
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		commands := commandsIn(string(data))
		if len(commands) == 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := open(t, root)
			if !strings.Contains(string(data), "$ bin/shop") {
				s.run("bin/shop -listen 127.0.0.1:8080 >/dev/null &")
				s.run("bin/load -address 127.0.0.1:8080 -requests 100000 -rate 40 >/dev/null &")
			}
			if !strings.Contains(string(data), "keyhole dev --dir") {
				s.run("bin/keyhole dev --dir /tmp/keyhole --listen 127.0.0.1:7443")
				s.run("export KEYHOLE_CONFIG=/tmp/keyhole/client.yaml PATH=$PWD/bin:$PATH")
			}
			for _, c := range commands {
				s.run(c)
			}
		})
	}
}

// TestMakeTargetsInDocuments: `make` within a test would run this test again, so that only the targets' names are checked.
func TestMakeTargetsInDocuments(t *testing.T) {
	root := testkit.Root(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("(?m)(?:^    |`)(?:sudo )?make ([a-z]+)")
	var seen int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(data), -1) {
			seen++
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: make %s is not in the Makefile", filepath.Base(file), m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no document names a make target")
	}
}

// commandsIn returns what stands behind "$ " in the blocks marked "console".
func commandsIn(text string) []string {
	var commands []string
	var inside bool
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "```") {
			inside = line == "```console"
			continue
		}
		if command, ok := strings.CutPrefix(line, "$ "); ok && inside {
			commands = append(commands, command)
		}
	}
	return commands
}

// open starts a shell in which the names that documents use stand for free ports and new directories.
func open(t *testing.T, root string) *session {
	t.Helper()
	dir := t.TempDir()
	s := &session{t: t, root: root, dir: dir}
	bin := filepath.Join(dir, "bin")
	s.replaced = strings.NewReplacer(
		"$PWD/bin", bin,
		"/tmp/keyhole", filepath.Join(dir, "keyhole"),
		"127.0.0.1:7443", freeAddress(t),
		"127.0.0.1:8080", freeAddress(t),
		" bin/", " "+bin+"/",
	)
	build := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "./cmd/...", "./test/targets/shop", "./test/targets/shop/load")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as make does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	shell := exec.Command("bash")
	shell.Dir = root
	shell.Env = append(os.Environ(), "KEYHOLE_REASON=the documents are tried")
	s.shell = testkit.StartCommand(t, shell)
	t.Cleanup(func() {
		s.shell.Send("kill $(jobs -p) 2>/dev/null; wait; exit 0")
		s.shell.Wait(20 * time.Second)
	})
	return s
}

// run types one command and fails the test unless its status is 0.
func (s *session) run(command string) {
	s.t.Helper()
	if strings.HasPrefix(command, "make ") {
		return // TestMakeTargetsInDocuments; what it builds is built already
	}
	command = strings.TrimPrefix(command, "sudo ") // the test is root already
	if command == "-s" {
		return
	}
	typed := strings.TrimSpace(s.replaced.Replace(" " + command))
	if strings.Contains(typed, "keyhole dev ") && !strings.HasSuffix(typed, "&") {
		dev := exec.Command("bash", "-c", "exec "+typed)
		dev.Dir = s.root
		p := testkit.StartCommand(s.t, dev)
		p.Expect("ready", 30*time.Second)
		return
	}
	// Its own standard input, so that it does not read the commands that follow.
	s.shell.Send(fmt.Sprintf("{ %s\n} </dev/null; echo \"typed: $?\"", typed))
	if status := s.shell.Expect("typed:", 90*time.Second); status != "0" {
		s.t.Errorf("%s\nended with status %s\n%s", typed, status, s.shell.Stderr())
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

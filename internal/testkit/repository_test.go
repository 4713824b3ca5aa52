// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// maxLines is what one source file may hold. What is longer holds two things.
const maxLines = 500

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 {
			continue // only tests
		}
		want := "Package " + p.Name
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.ImportPath)
		}
		if strings.HasPrefix(p.name(), "proto/") {
			continue // generated; the words are documented in the .proto file
		}
		if !strings.HasPrefix(p.Doc, want+" ") {
			t.Errorf("%s: the package comment begins %q; want %q", p.name(), p.Doc, want+" ...")
		}
	}
}

// TestSourceFiles holds the rules that are about every file: a licence line, a length that one can read, no note to oneself.
func TestSourceFiles(t *testing.T) {
	note := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	for _, file := range trackedFiles(t) {
		ext := filepath.Ext(file)
		if ext != ".go" && ext != ".c" && ext != ".h" && ext != ".sh" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(Root(t), file))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		head := data[:min(len(data), 2000)]
		if bytes.Contains(head, []byte("DO NOT EDIT.")) || filepath.Base(file) == "vmlinux.h" {
			continue // generated
		}
		if !bytes.Contains(data[:min(len(data), 200)], []byte("SPDX-License-Identifier: ")) {
			t.Errorf("%s: no SPDX-License-Identifier in the first lines", file)
		}
		if n := bytes.Count(data, []byte("\n")); n > maxLines {
			t.Errorf("%s: %d lines; at most %d", file, n, maxLines)
		}
		if strings.HasSuffix(file, "repository_test.go") {
			continue // names the words
		}
		if found := note.Find(data); found != nil {
			t.Errorf("%s: %s: file an issue, or do it", file, found)
		}
	}
}

func TestModuleReplacesNothing(t *testing.T) {
	for _, name := range []string{"go.mod", "tools/go.mod"} {
		data, err := os.ReadFile(filepath.Join(Root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		file, err := modfile.Parse(name, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(file.Replace) > 0 {
			t.Errorf("%s: replaces %s: users' builds would not get it", name, file.Replace[0].Old.Path)
		}
	}
}

func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached")
	cmd.Dir = Root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

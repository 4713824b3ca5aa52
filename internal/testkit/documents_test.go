// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureNamesWhatIsThere: each test, fuzz target, folder and file that ARCHITECTURE.md names exists, and each package
// of the module is named there.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	root := Root(t)
	data, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	var tests strings.Builder
	for _, file := range trackedFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			source, err := os.ReadFile(filepath.Join(root, file))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			tests.Write(source)
		}
	}
	var named int
	for _, name := range regexp.MustCompile("`(Test[A-Z][A-Za-z]+)`").FindAllStringSubmatch(text, -1) {
		named++
		if !strings.Contains(tests.String(), "func "+name[1]+"(") {
			t.Errorf("no test is called %s", name[1])
		}
	}
	if named == 0 {
		t.Error("no test is named")
	}
	for _, path := range regexp.MustCompile("`((?:agent|bpf|cmd|controlplane|docs|internal|scripts|test|tools)/[a-zA-Z0-9_./-]+)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(root, path[1])); err != nil {
			t.Errorf("it names %s: %v", path[1], err)
		}
	}
	for _, p := range listPackages(t) {
		if name := p.name(); len(p.GoFiles) > 0 && !strings.HasPrefix(name, "test/") && !strings.Contains(name, "/internal/") &&
			!strings.Contains(text, "`"+name) && !strings.Contains(text, "`"+filepath.Base(name)+"`") && !strings.Contains(name, "testkit/") && !strings.HasSuffix(name, "test") {
			t.Errorf("package %s is not in it", name)
		}
	}
}

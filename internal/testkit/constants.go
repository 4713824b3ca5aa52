// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Constants are the names of a type's exported constants in a package of this module, as its sources declare them: a test that has to
// speak of each sees one that is added.
func Constants(t testing.TB, pkg, typeName string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(Root(t), pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			var current ast.Expr // a constant without a value has the type of the one above it
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				if spec.Type != nil || len(spec.Values) > 0 {
					current = spec.Type
				}
				if id, ok := current.(*ast.Ident); !ok || id.Name != typeName {
					continue
				}
				for _, name := range spec.Names {
					if name.IsExported() {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s has no constants of type %s", pkg, typeName)
	}
	return names
}

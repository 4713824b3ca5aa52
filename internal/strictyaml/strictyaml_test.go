// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"strings"
	"testing"
)

type file struct {
	Version int `yaml:"version"`
	Max     struct {
		TTL string `yaml:"ttl"`
	} `yaml:"max"`
	Names []string `yaml:"names"`
}

func TestUnmarshal(t *testing.T) {
	var f file
	if err := Unmarshal([]byte("# comment\nversion: 1\nmax: {ttl: 5m}\nnames: [a, b]\n"), &f); err != nil {
		t.Fatal(err)
	}
	if f.Version != 1 || f.Max.TTL != "5m" || len(f.Names) != 2 {
		t.Errorf("read %+v", f)
	}
	for text, says := range map[string]string{
		"":                              "empty",
		"# only a comment\n":            "empty",
		"version: 1\nmax:\n  tll: 5m":   `line 3: unknown key "tll"`,
		"version: 1\nversion: 2":        "line 2",
		"version: one":                  "line 1",
		"version: 1\n---\nversion: 2":   "more than one document",
		"version: 1\n--- {":             "more than one document",
		"version: [":                    "line 1",
		"- 1":                           "line 1",
		strings.Repeat("#", MaxBytes+1): "at most",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nnames: [*c,*c,*c,*c,*c,*c,*c,*c]": "",
	} {
		err := Unmarshal([]byte(text), &f)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: error %v does not say %q", text, err, says)
		} else if strings.Contains(err.Error(), "strictyaml") || strings.HasPrefix(err.Error(), "yaml") {
			t.Errorf("%.40q: %v speaks of the program", text, err)
		}
	}
}

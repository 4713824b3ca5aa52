// SPDX-License-Identifier: Apache-2.0

// Package strictyaml reads the small YAML files that operators write: one document, no unknown key, no key given twice,
// and the line in every error.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxBytes is the longest file that is read. Files that people write are far shorter.
const MaxBytes = 1 << 20

// How the library speaks of a Go type, of which the writer of the file knows nothing.
var (
	unknownKey = regexp.MustCompile(`field (.*) not found in type \S+`)
	wrongKind  = regexp.MustCompile(`cannot unmarshal !*(.*) into \S+`)
)

// Unmarshal reads data into v, a pointer to a struct with yaml tags. An empty file is refused.
func Unmarshal(data []byte, v any) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("%d bytes; at most %d", len(data), MaxBytes)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		return explain(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

func explain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("empty")
	}
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		for i, text := range wrong.Errors {
			text = unknownKey.ReplaceAllString(text, `unknown key "$1"`)
			wrong.Errors[i] = wrongKind.ReplaceAllString(text, "$1 has no place here")
		}
		return errors.New(strings.Join(wrong.Errors, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

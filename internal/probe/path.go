// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParsePath splits the path of a value into its names: "c.user.email" into c, user and email. A name is an identifier of
// the target's language, or a decimal index; ranges of indices are not supported. The number of elements of a slice or of bytes of a
// string is "len(c.items)", or "c.items.len", which it is split into.
func ParsePath(path string) ([]string, error) {
	if path == "" {
		return nil, fmt.Errorf("%q: empty path; name a parameter, and fields after dots: user.email", path)
	}
	if len(path) > MaxPathBytes {
		return nil, fmt.Errorf("%.32q...: %d bytes; at most %d", path, len(path), MaxPathBytes)
	}
	inner, isLength := strings.CutPrefix(path, "len(")
	if isLength = isLength && strings.HasSuffix(inner, ")"); isLength {
		inner = strings.TrimSuffix(inner, ")") + ".len"
	} else {
		inner = path
	}
	names := strings.Split(inner, ".")
	for i, name := range names {
		if name == "" {
			return nil, fmt.Errorf("%.64q: an empty name; names are separated by single dots: user.email", path)
		}
		if i > 0 && isIndex(name) {
			continue
		}
		if !isIdentifier(name) {
			return nil, fmt.Errorf("%.64q: %.64q is not a name; names are letters, digits and '_'", path, name)
		}
	}
	return names, nil
}

// Canonical is the one way in which a path is written once it is a request's: len(c.items) is c.items.len, so that rules and
// redactions for c.items speak of it too. What is no path is left as it is, for validation to refuse.
func Canonical(path string) string {
	names, err := ParsePath(path)
	if err != nil {
		return path
	}
	return strings.Join(names, ".")
}

func isIndex(name string) bool {
	return len(name) <= 9 && strings.Trim(name, "0123456789") == ""
}

func isIdentifier(name string) bool {
	for i, r := range name {
		letter := r == '_' || unicode.IsLetter(r)
		if r == utf8.RuneError || !letter && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return true
}

// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean writes everything in s that could be more than a character on a terminal as an escape, as Go source would write it:
// control characters of both sets, directional and invisible characters, line ends, and bytes that are no UTF-8. What a
// target, or a file it chose, has named can rewrite the screen of whoever looks at it otherwise.
func Clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unprintable(r) && r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case unprintable(r) && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case unprintable(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

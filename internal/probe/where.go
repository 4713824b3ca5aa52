// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An Op compares a value with a literal.
type Op string

// The comparisons. Strings and booleans know only Equal and NotEqual.
const (
	Equal          Op = "=="
	NotEqual       Op = "!="
	Less           Op = "<"
	LessOrEqual    Op = "<="
	Greater        Op = ">"
	GreaterOrEqual Op = ">="
)

// ops in the order in which they are tried: longer ones first.
var ops = []Op{Equal, NotEqual, LessOrEqual, GreaterOrEqual, Less, Greater}

// A Condition is one comparison. All conditions of a request must hold for a hit to be captured.
type Condition struct {
	Path    string
	Op      Op
	Literal Literal
}

// LiteralKind says what a Literal is.
type LiteralKind uint8

// The kinds of literal.
const (
	Integer LiteralKind = iota + 1
	Text
	Boolean
)

// A Literal is what a Condition compares with. An integer is kept as sign and magnitude, since only the value's type,
// which the request does not know, says whether it is compared as signed.
type Literal struct {
	Kind      LiteralKind
	Negative  bool   // Integer: below zero
	Magnitude uint64 // Integer; for a negative one at most 1 << 63
	Text      string // Text
	True      bool   // Boolean
}

// String is the literal as ParseWhere reads it.
func (l Literal) String() string {
	switch l.Kind {
	case Text:
		return strconv.Quote(l.Text)
	case Boolean:
		return strconv.FormatBool(l.True)
	default:
		text := strconv.FormatUint(l.Magnitude, 10)
		if l.Negative {
			return "-" + text
		}
		return text
	}
}

// String is the condition as ParseWhere reads it.
func (c Condition) String() string { return c.Path + " " + string(c.Op) + " " + c.Literal.String() }

// ParseWhere reads a condition: comparisons joined by `&&`, each a path, an operator (== != < <= > >=) and a literal. A
// literal is an integer (decimal, or 0x, 0o, 0b), a Go string in double quotes, or true or false. Strings and booleans are
// compared by == and != only. The empty text is no condition.
func ParseWhere(text string) ([]Condition, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > MaxWhereBytes {
		return nil, fmt.Errorf("--where: %d bytes; at most %d", len(text), MaxWhereBytes)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("--where: not valid UTF-8")
	}
	p := whereParser{text: text}
	var conditions []Condition
	for {
		c, err := p.condition()
		if err != nil {
			return nil, fmt.Errorf("--where: column %d: %w", p.column(), err)
		}
		conditions = append(conditions, c)
		if len(conditions) > MaxConditions {
			return nil, fmt.Errorf("--where: more than %d comparisons", MaxConditions)
		}
		p.space()
		if p.rest() == "" {
			return conditions, nil
		}
		if !p.take("&&") {
			return nil, fmt.Errorf("--where: column %d: want && or the end, not %.16q", p.column(), p.rest())
		}
	}
}

type whereParser struct {
	text string
	at   int // byte
}

func (p *whereParser) rest() string { return p.text[p.at:] }
func (p *whereParser) column() int  { return utf8.RuneCountInString(p.text[:p.at]) + 1 }

func (p *whereParser) space() { p.at = len(p.text) - len(strings.TrimLeft(p.rest(), " \t")) }

func (p *whereParser) take(token string) bool {
	if !strings.HasPrefix(p.rest(), token) {
		return false
	}
	p.at += len(token)
	return true
}

func (p *whereParser) condition() (Condition, error) {
	var c Condition
	p.space()
	end := strings.IndexAny(p.rest(), " \t=!<>&\"")
	if end < 0 {
		end = len(p.rest())
	}
	path := p.rest()[:end]
	if path == "" {
		return c, errors.New("want a path, such as qty or user.id")
	}
	if _, err := ParsePath(path); err != nil {
		return c, err
	}
	c.Path = Canonical(path)
	p.at += end
	p.space()
	for _, op := range ops {
		if p.take(string(op)) {
			c.Op = op
			break
		}
	}
	if c.Op == "" {
		return c, fmt.Errorf("want a comparison (== != < <= > >=) after %s", path)
	}
	p.space()
	before := p.at
	literal, err := p.literal()
	if err != nil {
		return c, err
	}
	if literal.Kind != Integer && c.Op != Equal && c.Op != NotEqual {
		p.at = before
		return c, fmt.Errorf("%s compares integers only; strings and booleans know == and !=", c.Op)
	}
	c.Literal = literal
	return c, nil
}

func (p *whereParser) literal() (Literal, error) {
	if strings.HasPrefix(p.rest(), `"`) {
		quoted, err := strconv.QuotedPrefix(p.rest())
		if err != nil {
			return Literal{}, errors.New(`a string that does not end; want "..."`)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return Literal{}, fmt.Errorf("%.32s: not a string", quoted)
		}
		if len(text) > MaxLiteralBytes {
			return Literal{}, fmt.Errorf("a string of %d bytes; at most %d", len(text), MaxLiteralBytes)
		}
		p.at += len(quoted)
		return Literal{Kind: Text, Text: text}, nil
	}
	end := strings.IndexAny(p.rest(), " \t&")
	if end < 0 {
		end = len(p.rest())
	}
	word := p.rest()[:end]
	literal, err := parseWord(word)
	if err != nil {
		return Literal{}, err
	}
	p.at += end
	return literal, nil
}

func parseWord(word string) (Literal, error) {
	switch word {
	case "":
		return Literal{}, errors.New(`want a literal: an integer, a "string", true or false`)
	case "true", "false":
		return Literal{Kind: Boolean, True: word == "true"}, nil
	}
	digits, negative := strings.CutPrefix(word, "-")
	magnitude, err := strconv.ParseUint(digits, 0, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && negative && magnitude > 1<<63:
		return Literal{}, fmt.Errorf("%.32s: does not fit in 64 bits", word)
	case err != nil:
		return Literal{}, fmt.Errorf(`%.32q: want an integer, a "string" in double quotes, true or false`, word)
	}
	return Literal{Kind: Integer, Negative: negative && magnitude != 0, Magnitude: magnitude}, nil
}

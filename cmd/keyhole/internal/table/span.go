// SPDX-License-Identifier: Apache-2.0

// Package table writes lines to a terminal: styled pieces of text, in columns that are aligned by what the text takes on the
// screen. Everything that goes through it is cleaned first, so that no value can do more than be read.
package table

import (
	"io"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
)

// A Style is how a Span stands out, where there are colours.
type Style uint8

// The styles.
const (
	Plain Style = iota
	Dim         // what one may skip: withheld values, rules, hints
	Bold        // headings
	Good        // proved, restored
	Warn        // not as one would like
	Bad         // failed
)

var styles = [...]lipgloss.Style{
	Plain: lipgloss.NewStyle(),
	Dim:   lipgloss.NewStyle().Faint(true),
	Bold:  lipgloss.NewStyle().Bold(true),
	Good:  lipgloss.NewStyle().Foreground(lipgloss.Green),
	Warn:  lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	Bad:   lipgloss.NewStyle().Foreground(lipgloss.Red),
}

// A Span is a piece of a line.
type Span struct {
	Text  string
	Style Style
}

// Text is a plain Span.
func Text(s string) Span { return Span{Text: s} }

// A Line is what stands on one line, without its end.
type Line []Span

// String is the line without its styles, cleaned.
func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(Clean(s.Text))
	}
	return strings.TrimRight(b.String(), " ")
}

// Width is how many cells of a terminal a text takes once it is cleaned.
func Width(s string) int { return ansi.StringWidth(Clean(s)) }

// Cut shortens a text to so many cells; one that is longer ends in "…". It is cleaned first.
func Cut(s string, width int) string { return ansi.Truncate(Clean(s), width, "…") }

// A Printer writes lines to a terminal, a file or a pipe. Colours and styles are left out where they do not belong: the
// destination is no terminal, NO_COLOR is set, the terminal has none.
type Printer struct {
	w io.Writer
}

// NewPrinter looks at w and the environment ("NAME=value") to see what it can show.
func NewPrinter(w io.Writer, environment []string) *Printer {
	return &Printer{colorprofile.NewWriter(w, environment)}
}

// Print writes lines.
func (p *Printer) Print(lines ...Line) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(render(l))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// Redraw puts a line in the place of the one that Redraw wrote before, at the bottom of a terminal. It is cut to the width.
// Erase takes it away again; whatever is printed in between comes behind it on the same line.
func (p *Printer) Redraw(l Line, width int) error {
	_, err := io.WriteString(p.w, "\r"+ansi.Truncate(render(l), max(width-1, 0), "…")+ansi.EraseLineRight)
	return err
}

// Erase takes away what Redraw wrote.
func (p *Printer) Erase() error {
	_, err := io.WriteString(p.w, "\r"+ansi.EraseLineRight)
	return err
}

func render(l Line) string {
	var b strings.Builder
	for i, s := range l {
		text := Clean(s.Text)
		if i == len(l)-1 {
			text = strings.TrimRight(text, " ")
		}
		b.WriteString(styles[s.Style].Render(text))
	}
	return b.String()
}

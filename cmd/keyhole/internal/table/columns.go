// SPDX-License-Identifier: Apache-2.0

package table

import "strings"

// gap is what stands between two columns.
const gap = "  "

// A Column is one column of a table.
type Column struct {
	Title string
	Right bool // aligned to the right: numbers
	Min   int  // cells that it takes at least
	// Max is how many cells a text may take before the column is no longer widened for it; 0: any number.
	Max int
	// Cut shortens what is longer than Max. Else it pushes the rest of its line to the right.
	Cut bool
}

// Columns align rows that come one after the other: a column is widened when a text needs it, up to its maximum, and
// never narrowed. To align all rows of a table alike, Fit them first.
type Columns struct {
	columns []Column
	widths  []int
}

// NewColumns makes columns that are as wide as their titles.
func NewColumns(columns ...Column) *Columns {
	c := &Columns{columns: columns, widths: make([]int, len(columns))}
	for i, column := range columns {
		c.widths[i] = max(Width(column.Title), column.Min)
	}
	return c
}

// Header is the line with the titles.
func (c *Columns) Header() Line {
	cells := make([]Span, len(c.columns))
	for i, column := range c.columns {
		cells[i] = Span{column.Title, Bold}
	}
	return c.align(cells)
}

// Fit widens the columns for a row. A cell for which there is no column is left out.
func (c *Columns) Fit(cells []Span) {
	for i, cell := range cells[:min(len(cells), len(c.columns))] {
		width := Width(cell.Text)
		if most := c.columns[i].Max; most > 0 {
			width = min(width, most)
		}
		c.widths[i] = max(c.widths[i], width)
	}
}

// Row fits and aligns one row.
func (c *Columns) Row(cells []Span) Line {
	c.Fit(cells)
	return c.align(cells)
}

func (c *Columns) align(cells []Span) Line {
	cells = cells[:min(len(cells), len(c.columns))]
	line := make(Line, 0, 3*len(cells))
	for i, cell := range cells {
		column := c.columns[i]
		if column.Cut && column.Max > 0 {
			cell.Text = Cut(cell.Text, max(column.Max, c.widths[i]))
		}
		space := strings.Repeat(" ", max(c.widths[i]-Width(cell.Text), 0))
		if i > 0 {
			line = append(line, Text(gap))
		}
		switch {
		case column.Right:
			line = append(line, Text(space), cell)
		case i < len(cells)-1:
			line = append(line, cell, Text(space))
		default:
			line = append(line, cell)
		}
	}
	return line
}

// Table aligns all rows alike, under the columns' titles.
func Table(columns []Column, rows [][]Span) []Line {
	c := NewColumns(columns...)
	for _, row := range rows {
		c.Fit(row)
	}
	lines := make([]Line, 0, len(rows)+1)
	lines = append(lines, c.Header())
	for _, row := range rows {
		lines = append(lines, c.align(row))
	}
	return lines
}

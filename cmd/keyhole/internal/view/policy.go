// SPDX-License-Identifier: Apache-2.0

package view

import (
	"slices"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

// Outcomes lists what becomes of samples.
func Outcomes(list []redact.Outcome) []table.Line {
	columns := []table.Column{{Title: "FIELD"}, {Title: "TYPE"}, {Title: "VALUE", Max: 40}, {Title: "ACTION"}, {Title: "LEAVES", Max: 40}, {Title: "BECAUSE", Max: 60}}
	wanted := slices.ContainsFunc(list, func(o redact.Outcome) bool { return o.Want != "" || o.WantRule != "" || o.WantLeaves != nil })
	if wanted {
		columns = append(columns, table.Column{Title: "WANTED"})
	}
	var rows [][]table.Span
	for _, o := range list {
		why := o.Rule
		if text, known := because[o.Rule]; known {
			why = text
		}
		if o.Note != "" {
			why += "; " + o.Note
		}
		verdict := table.Span{}
		switch {
		case o.Wrong != "":
			verdict = warn("wrong: " + o.Wrong)
		case o.Want != "" || o.WantRule != "" || o.WantLeaves != nil:
			verdict = table.Span{Text: "ok", Style: table.Good}
		}
		leaves := table.Text(o.Leaves)
		if o.Leaves == "" {
			leaves = dim("nothing")
		}
		row := []table.Span{table.Text(o.Path), dim(o.Type), table.Text(o.Value), table.Text(o.Action), leaves, dim(why)}
		if wanted {
			row = append(row, verdict)
		}
		rows = append(rows, row)
	}
	return table.Table(columns, rows)
}

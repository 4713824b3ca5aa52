// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Doctor says of each node what it can do and what it cannot, why, and what would change it.
func Doctor(list []*keyholev1.Node) []table.Line {
	var lines []table.Line
	for _, n := range list {
		lines = append(lines, line(bold(n.GetName()), "   ", n.GetVersion(), " on ", n.GetKernel(), ", ", n.GetArch()))
		for _, f := range n.GetFindings() {
			text := table.Text(f.GetText())
			switch doctor.State(f.GetState()) {
			case doctor.Missing, doctor.Limited:
				text = warn(f.GetText())
			case doctor.Fact:
				text = dim(f.GetText())
			}
			lines = append(lines, line(dim(fmt.Sprintf("  %-26s ", f.GetSubject())), text))
			if f.GetAdvice() != "" {
				lines = append(lines, line(strings.Repeat(" ", 29), dim("to change that: "), f.GetAdvice()))
			}
		}
	}
	return lines
}

// forkedText says which children pay for a probe of their parent.
func forkedText(live []int32, sum int32) string {
	pids := make([]string, len(live))
	for i, pid := range live {
		pids[i] = fmt.Sprint(pid)
	}
	text := fmt.Sprintf("%d forked under the probe have inherited its breakpoints: they pay for each and yield no event", sum)
	if len(pids) > 0 {
		text += "; there now: " + strings.Join(pids, ", ")
	}
	return text
}

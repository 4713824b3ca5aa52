// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/internal/doctor"
)

func doctorCommand() *cobra.Command {
	form, perfEvents := "table", false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this node can do, what it cannot, and what would change it",
		Long: `keyhole-agent doctor says in plain words what this node can do, what it cannot and why, and what would change it. It needs root, and
neither a control plane nor a running agent: it attaches to processes of its own. Its exit status is 1 if the node cannot take sessions.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form != "table" && form != "json" {
				return fmt.Errorf("-o %q: want table or json", form)
			}
			if os.Geteuid() != 0 {
				return errors.New("doctor must be started by root, to load eBPF programs: sudo keyhole-agent doctor")
			}
			r, err := privsep.Examine(cmd.Context(), perfEvents)
			if err != nil {
				return err
			}
			if err := writeReport(cmd.OutOrStdout(), r, form == "json"); err != nil {
				return err
			}
			if err := r.SelfTest.Err(); err != nil {
				return fmt.Errorf("this node takes no session: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&form, "output", "o", form, "form of the answer: table or json")
	perfEventsFlag(cmd, &perfEvents)
	return cmd
}

// writeReport writes a report for people, or as one JSON object with the report and its findings.
func writeReport(w io.Writer, r *doctor.Report, asJSON bool) error {
	findings := r.Findings()
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			*doctor.Report
			Findings []doctor.Finding `json:"findings"`
		}{r, findings})
	}
	for _, f := range findings {
		text := f.Text
		if f.Advice != "" {
			text += "\n" + fmt.Sprintf("%-37s to change that: %s", "", f.Advice)
		}
		if _, err := fmt.Fprintf(w, "%-8s %-28s %s\n", f.State, f.Subject, text); err != nil {
			return err
		}
	}
	return nil
}

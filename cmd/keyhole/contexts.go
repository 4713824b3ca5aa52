// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

func (sh *shell) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "List control planes, and say which one is meant",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "ls",
			Short: "List the contexts of the configuration file",
			Args:  cobra.NoArgs,
			RunE: run(func(*cobra.Command, []string) error {
				_, config, err := sh.loadConfig()
				if err != nil {
					return err
				}
				var rows [][]table.Span
				for _, c := range config.Contexts {
					current := ""
					if c.Name == config.Current {
						current = "*"
					}
					rows = append(rows, []table.Span{table.Text(current), table.Text(c.Name), table.Text(c.ControlPlane), table.Text(c.Certificate)})
				}
				return sh.out.Print(table.Table([]table.Column{{}, {Title: "CONTEXT"}, {Title: "CONTROL PLANE"}, {Title: "CERTIFICATE"}}, rows)...)
			}),
		},
		&cobra.Command{
			Use:   "use NAME",
			Short: "Make a context the current one",
			Args:  arguments(1, 1),
			RunE: run(func(_ *cobra.Command, args []string) error {
				path, config, err := sh.loadConfig()
				if err != nil {
					return err
				}
				c, found := config.Find(args[0])
				if !found {
					p := problem.New(problem.NotFound, "%s has no context %q; keyhole context ls lists them", path, args[0])
					return p
				}
				config.Use(c)
				return config.Save(path)
			}),
		},
	)
	return cmd
}

func (sh *shell) loadConfig() (string, *client.Config, error) {
	path, _, err := sh.configPath()
	if err != nil {
		return "", nil, invalid("%v: say --config FILE", err)
	}
	config, err := client.Load(path)
	if err != nil {
		return "", nil, invalid("%v", err)
	}
	return path, config, nil
}

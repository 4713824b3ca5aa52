// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func (sh *shell) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and verify the audit log",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sh.auditListCommand(), sh.auditShowCommand(), sh.auditVerifyCommand())
	return cmd
}

func (sh *shell) auditListCommand() *cobra.Command {
	var start uint64
	var session string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the records of the audit log",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().Uint64Var(&start, "start", 0, "begin with record `N`")
	cmd.Flags().StringVar(&session, "session", "", "only those of the session with this `ID`")
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, _ []string) error {
		var list []view.Entry
		for r, err := range c.Records(ctx, start, session) {
			if err != nil {
				return err
			}
			e, err := entry(r)
			if err != nil {
				return err
			}
			list = append(list, e)
		}
		if *form == outputJSON {
			return sh.writeRecords(list)
		}
		if len(list) == 0 {
			return sh.err.Print(table.Line{table.Text("no records")})
		}
		return sh.out.Print(view.Records(list)...)
	})
	return cmd
}

func (sh *shell) auditShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell a session's story from its audit records, each proved to be in the log",
		Args:  arguments(1, 1),
	}
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, args []string) error {
		_, key, err := logKey(c.Context().LogKey)
		if err != nil {
			return err
		}
		var list []view.Entry
		for r, err := range c.Records(ctx, 0, args[0]) {
			if err != nil {
				return err
			}
			e, err := entry(r)
			if err != nil {
				return err
			}
			if err := proved(ctx, c, r, key); err != nil {
				return err
			}
			list = append(list, e)
		}
		if len(list) == 0 {
			return problem.New(problem.NotFound, "no audit record is about a session %q; keyhole audit ls lists what there is", args[0])
		}
		if *form == outputJSON {
			return sh.writeRecords(list)
		}
		if err := sh.out.Print(view.Story(list)...); err != nil {
			return err
		}
		return sh.out.Print(table.Line{{Text: fmt.Sprintf("%d records, each proved to be in the signed log", len(list)), Style: table.Good}})
	})
	return cmd
}

// proved checks that a record is in the log that the newest checkpoint signs.
func proved(ctx context.Context, c *client.Client, r *keyholev1.AuditRecord, key note.Verifier) error {
	p, err := c.Audit.ProveRecord(ctx, &keyholev1.ProveRecordRequest{Index: r.GetIndex()})
	if err != nil {
		return err
	}
	checkpoint, _, _, err := log.ParseCheckpoint(p.GetCheckpoint(), key.Name(), key)
	if err != nil {
		return fmt.Errorf("verify checkpoint: %w", err)
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(r.GetData())
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, r.GetIndex(), checkpoint.Size, leaf, p.GetProof(), checkpoint.Hash); err != nil {
		return fmt.Errorf("audit record %d is not proved to be in the log: %w", r.GetIndex(), err)
	}
	return nil
}

func (sh *shell) auditVerifyCommand() *cobra.Command {
	var dir, key string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole audit log against its signed checkpoint",
		Long: "Verify computes the log's Merkle root from all records, compares it with the checkpoint that the log's key signed, and checks\n" +
			"that the records make one story: nothing attached without a grant and a record before it. With --dir it does so offline,\n" +
			"on a copy of the log's directory.",
		Example: "  keyhole audit verify\n  keyhole audit verify --dir /backup/log --key log.pub",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`DIRECTORY` of the log, instead of the control plane")
	cmd.Flags().StringVar(&key, "key", "", "`FILE` with the log's public key (default: that of the context)")
	form := outputFlag(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		verify := sh.verifyRemote
		if dir != "" {
			verify = func(ctx context.Context, key string) (*tlog.Report, error) { return verifyDirectory(ctx, dir, key) }
		}
		report, err := verify(cmd.Context(), key)
		if err != nil {
			return err
		}
		if len(report.Findings) > 0 {
			return problem.New(problem.Internal, "the audit log is as it was signed, but its records contradict each other:\n  %s", strings.Join(report.Findings, "\n  "))
		}
		if *form == outputJSON {
			return json.NewEncoder(sh.stdout).Encode(verified{report.Records, hex.EncodeToString(report.Root), uint64(report.Open)})
		}
		text := fmt.Sprintf("audit verified: %d records, checkpoint root %x", report.Records, report.Root)
		if report.Open > 0 {
			text += fmt.Sprintf("; %d sessions are not closed yet", report.Open)
		}
		return sh.out.Print(table.Line{{Text: text, Style: table.Good}})
	})
	return cmd
}

// verified is what a program is told of a log that is as it should be.
type verified struct {
	Records uint64 `json:"records,string"`
	Root    string `json:"root"`        // of the Merkle tree, as the checkpoint signs it
	Open    uint64 `json:"open,string"` // sessions that are not closed yet
}

// verifyDirectory checks a copy of a log. Nobody is asked anything.
func verifyDirectory(ctx context.Context, dir, keyFile string) (*tlog.Report, error) {
	if keyFile == "" {
		return nil, invalid("audit verify --dir: --key is missing; name the file with the log's public key")
	}
	public, _, err := logKey(keyFile)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return tlog.Verify(ctx, dir, public)
}

// verifyRemote asks the control plane for its checkpoint and then for all records, and checks them here.
func (sh *shell) verifyRemote(ctx context.Context, keyFile string) (*tlog.Report, error) {
	c, err := sh.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if keyFile == "" {
		keyFile = c.Context().LogKey
	}
	public, _, err := logKey(keyFile)
	if err != nil {
		return nil, err
	}
	checkpoint, err := c.Audit.GetCheckpoint(ctx, &keyholev1.GetCheckpointRequest{})
	if err != nil {
		return nil, err
	}
	return tlog.VerifyRecords(checkpoint.GetCheckpoint(), public, func(yield func([]byte, error) bool) {
		for r, err := range c.Records(ctx, 0, "") {
			if !yield(r.GetData(), err) {
				return
			}
		}
	})
}

// logKey reads the key that checkpoints are verified with. It comes from a file, never from who is to be checked.
func logKey(file string) (string, note.Verifier, error) {
	if file == "" {
		return "", nil, invalid("the audit log's public key is not known: name its file by logKey in the context, or by --key")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", nil, invalid("read the audit log's public key: %v", err)
	}
	public := strings.TrimSpace(string(data))
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return "", nil, invalid("read the audit log's public key: %s: %v", file, err)
	}
	return public, verifier, nil
}

// entry reads a record that the control plane sent.
func entry(r *keyholev1.AuditRecord) (view.Entry, error) {
	record, err := audit.Parse(r.GetData())
	if err != nil {
		return view.Entry{}, fmt.Errorf("audit record %d: %w", r.GetIndex(), err)
	}
	return view.Entry{Index: r.GetIndex(), Record: *record}, nil
}

func (sh *shell) writeRecords(list []view.Entry) error {
	for _, e := range list {
		data, err := view.RecordJSON(e)
		if err != nil {
			return err
		}
		if _, err := sh.stdout.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/internal/audit"
)

// A Report is what a whole log was found to be.
type Report struct {
	Records  uint64
	Root     []byte
	Open     int      // sessions that are about to attach or attached, and not yet detached
	Findings []string // what the records contradict each other in; none in a sound log
}

// ErrTampered is wrapped by the errors of Verify and VerifyRecords that mean that the log is not what was signed.
var ErrTampered = errors.New("the audit log is not what was signed")

// Verify checks the log in a directory, offline: that the checkpoint is signed with the key, that its root is that of all
// records, that every tile is what the records make it, and what the records say together.
func Verify(ctx context.Context, dir, public string) (*Report, error) {
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: public key: %w", err)
	}
	files := client.FileFetcher{Root: dir}
	raw, err := files.ReadCheckpoint(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: %w", err)
	}
	checkpoint, err := parse(raw, verifier)
	if err != nil {
		return nil, err
	}
	var leaves [][]byte
	report, err := verifyRecords(checkpoint, func(yield func([]byte, error) bool) {
		for i := uint64(0); i*layout.EntryBundleWidth < checkpoint.Size; i++ {
			bundle, err := client.GetEntryBundle(ctx, files.ReadEntryBundle, i, checkpoint.Size)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, record := range bundle.Entries {
				leaves = append(leaves, rfc6962.DefaultHasher.HashLeaf(record))
				if !yield(record, nil) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return report, verifyTiles(ctx, files, leaves)
}

// verifyTiles compares each tile with what the level below it makes it. (The check that tessera brings, package fsck in v1.0.4,
// waits forever on a tile that differs.)
func verifyTiles(ctx context.Context, files client.FileFetcher, hashes [][]byte) error {
	for level := uint64(0); len(hashes) > 0; level++ {
		var above [][]byte
		for i := 0; i < len(hashes); i += layout.TileWidth {
			want := hashes[i:min(i+layout.TileWidth, len(hashes))]
			index, partial := uint64(i/layout.TileWidth), uint8(len(want)%layout.TileWidth)
			raw, err := files.ReadTile(ctx, level, index, partial)
			if err != nil {
				return fmt.Errorf("verify audit log: %w", err)
			}
			var tile api.HashTile
			// A full tile may be there although a partial one was asked for.
			if err := tile.UnmarshalText(raw); err != nil || len(tile.Nodes) < len(want) ||
				!slices.EqualFunc(tile.Nodes[:len(want)], want, bytes.Equal) {
				return fmt.Errorf("verify audit log: %w: tile %d of level %d", ErrTampered, index, level)
			}
			if partial == 0 {
				root, err := rootOf(want)
				if err != nil {
					return err
				}
				above = append(above, root)
			}
		}
		hashes = above
	}
	return nil
}

func rootOf(hashes [][]byte) ([]byte, error) {
	tree := newTree()
	for _, h := range hashes {
		if err := tree.Append(h, nil); err != nil {
			return nil, fmt.Errorf("verify audit log: %w", err)
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: %w", err)
	}
	return root, nil
}

func newTree() *compact.Range {
	return (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
}

// VerifyRecords checks all records of a log that were had in any way, in order, against a checkpoint and the key.
func VerifyRecords(checkpoint []byte, public string, records iter.Seq2[[]byte, error]) (*Report, error) {
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: public key: %w", err)
	}
	parsed, err := parse(checkpoint, verifier)
	if err != nil {
		return nil, err
	}
	return verifyRecords(parsed, records)
}

func verifyRecords(checkpoint *log.Checkpoint, records iter.Seq2[[]byte, error]) (*Report, error) {
	tree := newTree()
	var story audit.Story
	for record, err := range records {
		if err != nil {
			return nil, fmt.Errorf("verify audit log: read record %d: %w", tree.End(), err)
		}
		if tree.End() == checkpoint.Size {
			break // the log grew since its checkpoint was signed
		}
		story.Add(tree.End(), record)
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(record), nil); err != nil {
			return nil, fmt.Errorf("verify audit log: %w", err)
		}
	}
	if tree.End() != checkpoint.Size {
		return nil, fmt.Errorf("verify audit log: %w: %d records are there, %d were signed", ErrTampered, tree.End(), checkpoint.Size)
	}
	root := rfc6962.DefaultHasher.EmptyRoot()
	if checkpoint.Size > 0 {
		var err error
		if root, err = tree.GetRootHash(nil); err != nil {
			return nil, fmt.Errorf("verify audit log: %w", err)
		}
	}
	if !bytes.Equal(root, checkpoint.Hash) {
		return nil, fmt.Errorf("verify audit log: %w: the records have root %x, %x was signed", ErrTampered, root, checkpoint.Hash)
	}
	return &Report{Records: checkpoint.Size, Root: root, Open: story.Open(), Findings: story.Findings()}, nil
}

func parse(raw []byte, verifier note.Verifier) (*log.Checkpoint, error) {
	c, _, _, err := log.ParseCheckpoint(raw, verifier.Name(), verifier)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: checkpoint: %w: %w", ErrTampered, err)
	}
	return c, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package tlog keeps all audit records in a transparency log: a Merkle tree in tlog-tiles format
// (https://c2sp.org/tlog-tiles) whose root is signed, so that no record can be changed or taken out without everybody who
// saw an earlier checkpoint being able to prove it.
package tlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/keyhole-dev/keyhole/internal/audit"
)

const (
	// checkpointInterval is the least that the driver takes. A record is proved so long after it is durable at most.
	checkpointInterval = 100 * time.Millisecond
	// awaitPoll is how often a waiting proof looks for a new checkpoint.
	awaitPoll = 5 * time.Millisecond
	// batchAge is how long a record waits for others to be written with.
	batchAge = 2 * time.Millisecond
)

// A Log is an open transparency log. It is safe for concurrent use.
type Log struct {
	dir      string
	reader   tessera.LogReader
	appender *tessera.Appender
	awaiter  *tessera.PublicationAwaiter
	verifier note.Verifier
	shutdown func(context.Context) error
	stop     context.CancelFunc
}

// Open opens the log in dir, or begins one, for one process at a time.
func Open(dir string, key Key) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	quietly()
	ctx, stop := context.WithCancel(context.Background())
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		stop()
		return nil, fmt.Errorf("open audit log %s: %w", dir, err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(key.signer).
		WithCheckpointInterval(checkpointInterval).
		WithBatching(tessera.DefaultBatchMaxSize, batchAge)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		stop()
		return nil, fmt.Errorf("open audit log %s: %w", dir, err)
	}
	return &Log{
		dir: dir, reader: reader, appender: appender, verifier: key.verifier, shutdown: shutdown, stop: stop,
		awaiter: tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, awaitPoll),
	}, nil
}

// quietly keeps what tessera says about its daily business from standard error, but not its warnings.
var quietly = sync.OnceFunc(func() {
	klog.LogToStderr(false)
	klog.SetOutputBySeverity("INFO", io.Discard)
	klog.SetOutputBySeverity("WARNING", os.Stderr)
})

// Append makes a record durable and returns its index. The record is in the log for good; a signed checkpoint covers it a
// little later, as Prove awaits.
func (l *Log) Append(ctx context.Context, r *audit.Record) (uint64, error) {
	data, err := r.Marshal()
	if err != nil {
		return 0, err
	}
	index, err := l.appender.Add(ctx, tessera.NewEntry(data))()
	if err != nil {
		return 0, fmt.Errorf("append to audit log: %w", err)
	}
	return index.Index, nil
}

// AppendAll makes records that somebody else wrote durable as they are, in their order: each waits for the one before, since the
// driver may write two batches in either order.
func (l *Log) AppendAll(ctx context.Context, records [][]byte) error {
	for _, data := range records {
		if _, err := l.appender.Add(ctx, tessera.NewEntry(data))(); err != nil {
			return fmt.Errorf("append to audit log: %w", err)
		}
	}
	return nil
}

// A Proof shows that a record is in the log of a checkpoint.
type Proof struct {
	Index      uint64
	Record     []byte
	Hashes     [][]byte // RFC 6962 section 2.1.1
	Checkpoint []byte
}

// AppendProved makes a record durable and awaits its proof.
func (l *Log) AppendProved(ctx context.Context, r *audit.Record) (*Proof, error) {
	data, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	index, raw, err := l.awaiter.Await(ctx, l.appender.Add(ctx, tessera.NewEntry(data)))
	if err != nil {
		return nil, fmt.Errorf("append to audit log: %w", errors.Join(err, l.clockStepped()))
	}
	return l.prove(ctx, index.Index, data, raw)
}

// Prove returns a record with its proof under the newest checkpoint. ErrNoRecord: it covers no such record.
func (l *Log) Prove(ctx context.Context, index uint64) (*Proof, error) {
	raw, err := l.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	record, err := l.Record(ctx, index)
	if err != nil {
		return nil, err
	}
	return l.prove(ctx, index, record, raw)
}

func (l *Log) prove(ctx context.Context, index uint64, record, checkpoint []byte) (*Proof, error) {
	c, err := l.parse(checkpoint)
	if err != nil {
		return nil, err
	}
	builder, err := client.NewProofBuilder(ctx, c.Size, l.reader.ReadTile)
	if err != nil {
		return nil, fmt.Errorf("prove record %d: %w", index, err)
	}
	hashes, err := builder.InclusionProof(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("prove record %d: %w", index, err)
	}
	return &Proof{Index: index, Record: record, Hashes: hashes, Checkpoint: checkpoint}, nil
}

// ErrNoRecord is what Record and Prove return for an index beyond the newest checkpoint.
var ErrNoRecord = errors.New("no such audit record")

// Record returns one record's bytes.
func (l *Log) Record(ctx context.Context, index uint64) ([]byte, error) {
	size, err := l.Size(ctx)
	if err != nil {
		return nil, err
	}
	if index >= size {
		return nil, fmt.Errorf("%w: %d; the log has %d", ErrNoRecord, index, size)
	}
	bundle, err := client.GetEntryBundle(ctx, l.reader.ReadEntryBundle, index/layout.EntryBundleWidth, size)
	if err != nil {
		return nil, fmt.Errorf("read audit record %d: %w", index, err)
	}
	return bundle.Entries[index%layout.EntryBundleWidth], nil
}

// An Entry is a record with its place in the log.
type Entry struct {
	Index uint64
	Data  []byte
}

// Records yields the records from start up to size, which is at most the log's.
func (l *Log) Records(ctx context.Context, start, size uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for start < size {
			bundle, err := client.GetEntryBundle(ctx, l.reader.ReadEntryBundle, start/layout.EntryBundleWidth, size)
			if err != nil {
				yield(Entry{}, fmt.Errorf("read audit records from %d: %w", start, err))
				return
			}
			for _, data := range bundle.Entries[start%layout.EntryBundleWidth:] {
				if start == size || !yield(Entry{start, data}, nil) {
					return
				}
				start++
			}
		}
	}
}

// Checkpoint returns the newest signed checkpoint.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	raw, err := l.reader.ReadCheckpoint(ctx)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return raw, nil
}

// Size is how many records the newest checkpoint covers.
func (l *Log) Size(ctx context.Context) (uint64, error) {
	raw, err := l.Checkpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := l.parse(raw)
	if err != nil {
		return 0, err
	}
	return c.Size, nil
}

func (l *Log) parse(raw []byte) (*log.Checkpoint, error) {
	c, _, _, err := log.ParseCheckpoint(raw, l.verifier.Name(), l.verifier)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return c, nil
}

// clockStepped says so if the newest checkpoint is from the future: tessera publishes the next one an interval after it, so a
// wall clock that was set back stops the log until it has caught up.
func (l *Log) clockStepped() error {
	info, err := os.Stat(filepath.Join(l.dir, layout.CheckpointPath))
	if err != nil {
		return nil //nolint:nilerr // there is none yet: nothing is known about the clock
	}
	if ahead := time.Until(info.ModTime()); ahead > checkpointInterval {
		return fmt.Errorf("the wall clock was set back: the log's newest checkpoint is %v ahead of it, and no session begins until then", ahead)
	}
	return nil
}

// Close writes what waits and publishes a last checkpoint, until ctx is done.
func (l *Log) Close(ctx context.Context) error {
	defer l.stop()
	if err := l.shutdown(ctx); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

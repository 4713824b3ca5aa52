// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/telemetry"
)

// copyEvery is how often the log is looked at for records that have no copy yet.
const copyEvery = 250 * time.Millisecond

// adverse are the kinds of record that somebody who reads the copies may want to be woken by.
var adverse = []audit.Kind{audit.Denied, audit.Refused, audit.NotAttached, audit.AgentLost}

// A copier hands a copy of each record of the log to telemetry once the checkpoint that covers it is signed.
type copier struct {
	log    *tlog.Log
	store  *store.Store
	logger *slog.Logger
	copies *telemetry.AuditCopies
	place  store.Value // which record is the next
}

// startCopies copies until ctx is done.
func startCopies(ctx context.Context, work *sync.WaitGroup, log *tlog.Log, s *store.Store, logger *slog.Logger) error {
	copies, err := telemetry.StartAuditCopies(ctx, service())
	if err != nil {
		return err
	}
	c := &copier{log: log, store: s, logger: logger, copies: copies}
	const place = "audit/copied"
	c.place, err = s.Read(ctx, place)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	work.Go(func() { c.run(ctx) })
	return nil
}

func (c *copier) run(ctx context.Context) {
	ticker := time.NewTicker(copyEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		// The last look is after the server has ended: nothing is written any more.
		if err := c.copy(context.WithoutCancel(ctx)); err != nil {
			c.logger.Warn("audit copies", "error", err)
		}
	}
	if err := within(closeTime, c.copies.Shutdown); err != nil {
		c.logger.Warn("audit copies", "error", err)
	}
	if n := c.copies.Lost(); n > 0 {
		c.logger.Warn("audit copies were lost; the log has every record", "copies", n)
	}
}

func (c *copier) copy(ctx context.Context) error {
	var next uint64
	if len(c.place.Data) == 8 {
		next = binary.BigEndian.Uint64(c.place.Data)
	}
	size, err := c.log.Size(ctx)
	if err != nil || size <= next {
		return err
	}
	checkpoint, err := c.log.Checkpoint(ctx) // of this size, or a later one
	if err != nil {
		return err
	}
	for entry, err := range c.log.Records(ctx, next, size) {
		if err != nil {
			return err
		}
		r, err := audit.Parse(entry.Data)
		if err != nil {
			r = &audit.Record{Kind: audit.Refused} // a leaf that is no record of ours: its bytes are copied all the same
		}
		c.copies.Export(telemetry.AuditCopy{
			Kind: string(r.Kind), Time: r.Time, SessionID: r.SessionID, Actor: r.Actor, Node: r.Node,
			Index: entry.Index, Checkpoint: string(checkpoint), Record: string(entry.Data), Adverse: slices.Contains(adverse, r.Kind),
		})
	}
	c.place.Data = binary.BigEndian.AppendUint64(nil, size)
	c.place.Revision, err = c.store.Write(ctx, 0, c.place)
	return err
}

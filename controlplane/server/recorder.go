// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/internal/audit"
)

const (
	// Of those who are turned away each identity has so many records a second; the rest is counted in one.
	denialsPerSecond = 10
	tellSkipped      = 10 * time.Second
	// maxActors bounds what strangers can make us remember.
	maxActors = 1000
)

// A recorder puts on record who was turned away, without letting a flood of that wash everything else out of sight.
type recorder struct {
	log    *tlog.Log
	logger *slog.Logger

	mu     sync.Mutex
	actors map[string]*actor
	work   sync.WaitGroup
	done   chan struct{}
}

type actor struct {
	limit   *rate.Limiter
	skipped uint64
}

func newRecorder(log *tlog.Log, logger *slog.Logger) *recorder {
	r := &recorder{log: log, logger: logger, actors: make(map[string]*actor), done: make(chan struct{})}
	r.work.Go(r.tell)
	return r
}

// close ends the recorder when what it began is durable.
func (r *recorder) close() {
	r.tellSkipped()
	close(r.done)
	r.work.Wait()
}

// deny puts a denial on record, or counts it. The caller does not wait for it: it is told no in any case.
func (r *recorder) deny(who string, record audit.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.actors[who]
	if a == nil {
		if len(r.actors) >= maxActors {
			who = "others"
		}
		if a = r.actors[who]; a == nil {
			a = &actor{limit: rate.NewLimiter(denialsPerSecond, denialsPerSecond)}
			r.actors[who] = a
		}
	}
	if !a.limit.Allow() {
		a.skipped++
		return
	}
	r.append(record)
}

// append begins to write a record. The recorder is locked.
func (r *recorder) append(record audit.Record) {
	select {
	case <-r.done:
		return
	default:
	}
	record.Time = time.Now()
	r.work.Go(func() {
		if _, err := r.log.Append(context.Background(), &record); err != nil {
			r.logger.Error("a denial is not on record", "error", err)
		}
	})
}

// tell records, now and then, how many denials had no record of their own.
func (r *recorder) tell() {
	ticker := time.NewTicker(tellSkipped)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.tellSkipped()
		case <-r.done:
			return
		}
	}
}

func (r *recorder) tellSkipped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for who, a := range r.actors {
		if a.skipped > 0 {
			r.append(audit.Record{Kind: audit.Denied, Details: map[string]string{
				"who": who, "count": strconv.FormatUint(a.skipped, 10), "why": "so many more within " + tellSkipped.String(),
			}})
			a.skipped = 0
		} else {
			delete(r.actors, who)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// TestFloodOfDenials: each is on record, by itself or in a number, and no identity takes the others' room.
func TestFloodOfDenials(t *testing.T) {
	dir := t.TempDir()
	key, err := tlog.LoadKey(filepath.Join(dir, "key"), "keyhole.dev/log/test")
	if err != nil {
		t.Fatal(err)
	}
	log, err := tlog.Open(filepath.Join(dir, "log"), key)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder(log, slog.New(slog.DiscardHandler))
	const flood, identities = 500, maxActors + 100
	for range flood {
		r.deny("eve", audit.Record{Kind: audit.Denied, Actor: "eve"})
	}
	r.deny("ada", audit.Record{Kind: audit.Denied, Actor: "ada"})
	for i := range identities {
		r.deny(fmt.Sprintf("stranger %d", i), audit.Record{Kind: audit.Denied, Actor: "stranger"})
	}
	if n := len(r.actors); n > maxActors+1 {
		t.Errorf("%d identities are remembered", n)
	}
	r.close()
	r.deny("late", audit.Record{Kind: audit.Denied})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := log.Close(ctx); err != nil {
		t.Fatal(err)
	}
	size, err := log.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	single, counted := make(map[string]int), make(map[string]int)
	for entry, err := range log.Records(t.Context(), 0, size) {
		if err != nil {
			t.Fatal(err)
		}
		record, err := audit.Parse(entry.Data)
		if err != nil {
			t.Fatal(err)
		}
		if count := record.Details["count"]; count != "" {
			n, err := strconv.Atoi(count)
			if err != nil {
				t.Error(err)
			}
			counted[record.Details["who"]] += n
		} else {
			single[record.Actor]++
		}
	}
	if single["eve"] < denialsPerSecond || single["eve"] > 10*denialsPerSecond || single["eve"]+counted["eve"] != flood {
		t.Errorf("eve has %d records and %d in a number; she was denied %d times", single["eve"], counted["eve"], flood)
	}
	if single["ada"] != 1 {
		t.Errorf("ada has %d records", single["ada"])
	}
	if single["stranger"]+counted["others"] != identities || single["stranger"] < maxActors-2 {
		t.Errorf("strangers have %d records and %d in a number; they were %d", single["stranger"], counted["others"], identities)
	}
}

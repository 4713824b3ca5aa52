// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	// defaultPage is how many records are listed if no number is asked for.
	defaultPage = 1000
	// pageBytes is how long a list gets before it ends early: a record more, and it still fits a message of gRPC's own limit.
	pageBytes = 2 << 20
)

type auditService struct {
	keyholev1.UnimplementedAuditServiceServer
	s *Server
}

// ListRecords reads the log from a record on. Of one session only its records count towards the limit. A page may be shorter than
// was asked for; one without records is behind the last.
func (a auditService) ListRecords(ctx context.Context, request *keyholev1.ListRecordsRequest) (*keyholev1.ListRecordsResponse, error) {
	size, err := a.s.Log.Size(ctx)
	if err != nil {
		return nil, err
	}
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = defaultPage
	}
	response := &keyholev1.ListRecordsResponse{Size: size}
	bytes := 0
	for record, err := range a.s.Log.Records(ctx, request.GetStart(), size) {
		if err != nil {
			return nil, err
		}
		if session := request.GetSessionId(); session != "" {
			if r, err := audit.Parse(record.Data); err != nil || r.SessionID != session {
				continue
			}
		}
		response.Records = append(response.Records, &keyholev1.AuditRecord{Index: record.Index, Data: record.Data})
		if bytes += len(record.Data); bytes > pageBytes || len(response.GetRecords()) == limit {
			break
		}
	}
	return response, nil
}

func (a auditService) ProveRecord(ctx context.Context, request *keyholev1.ProveRecordRequest) (*keyholev1.ProveRecordResponse, error) {
	proof, err := a.s.Log.Prove(ctx, request.GetIndex())
	if errors.Is(err, tlog.ErrNoRecord) {
		return nil, problem.New(problem.NotFound, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &keyholev1.ProveRecordResponse{
		Record: &keyholev1.AuditRecord{Index: proof.Index, Data: proof.Record}, Proof: proof.Hashes, Checkpoint: proof.Checkpoint,
	}, nil
}

func (a auditService) GetCheckpoint(ctx context.Context, _ *keyholev1.GetCheckpointRequest) (*keyholev1.GetCheckpointResponse, error) {
	raw, err := a.s.Log.Checkpoint(ctx)
	return &keyholev1.GetCheckpointResponse{Checkpoint: raw}, err
}

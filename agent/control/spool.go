// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"

	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// A Spool holds this node's audit records until the control plane has them.
type Spool interface {
	// Pending returns records that were not acknowledged, in their order and from the first with a sequence number
	// above after; at most limit of them.
	Pending(after uint64, limit int) (records [][]byte, last uint64, err error)
	// Acknowledge says that all records up to a sequence number are durable elsewhere.
	Acknowledge(upTo uint64) error
}

// batchRecords is how many audit records are handed over at once.
const batchRecords = 64

// A spooler hands over the spool on one stream: one batch, its receipt, the next.
type spooler struct {
	spool   Spool
	sent    uint64 // the last that was sent on this stream
	waiting bool   // for its receipt
}

// next returns the next batch; nil if there is none or a receipt is due.
func (s *spooler) next() (*keyholev1.ConnectRequest, error) {
	if s.waiting {
		return nil, nil
	}
	records, last, err := s.spool.Pending(s.sent, batchRecords)
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	s.sent, s.waiting = last, true
	return &keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Spool{Spool: &keyholev1.SpoolBatch{Records: records}}}, nil
}

// acknowledge takes a receipt. One for more than was sent skips what the control plane has from an earlier stream; one for
// less ends this stream, and the next begins with what is pending.
func (s *spooler) acknowledge(upTo uint64) error {
	if err := s.spool.Acknowledge(upTo); err != nil {
		return fmt.Errorf("acknowledge audit records: %w", err)
	}
	if upTo < s.sent {
		return fmt.Errorf("the control plane has audit records up to %d; %d was the last sent", upTo, s.sent)
	}
	s.sent, s.waiting = upTo, false
	return nil
}

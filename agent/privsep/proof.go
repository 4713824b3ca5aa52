// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Target reaches the holder through the agent, which the network can reach; only the inspector has proved it. So the inspector tells the
// monitor the digest of each Target, and of the request that it answers, by a pipe of their own, before it gives the Target to the agent. The monitor
// parses nothing of the inspector's, and believes no Target that no inspector has vouched for.

// A proof is the digest of a request and of the Target that an inspector found for it.
type proof [sha256.Size]byte

// maxProofs is how many of an inspector's last answers the monitor remembers.
const maxProofs = 64

// proofOf is the proof of an answer. The Target is valid, so that its JSON is the same however often it was read and written.
func proofOf(spec *probe.Spec, t *target.Target) (proof, error) {
	asked, err := json.Marshal(spec.WithDefaults())
	if err != nil {
		return proof{}, fmt.Errorf("digest request: %w", err)
	}
	found, err := json.Marshal(t)
	if err != nil {
		return proof{}, fmt.Errorf("digest target: %w", err)
	}
	question := sha256.Sum256(asked)
	return sha256.Sum256(slices.Concat([]byte("keyhole target v1\x00"), question[:], found)), nil
}

// proofs are what one inspector has vouched for.
type proofs struct {
	mu    sync.Mutex
	pipe  int // its reading end, which does not block
	bytes []byte
}

// newProofs makes the pipe and returns its writing end.
func newProofs() (*proofs, int, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, -1, errors.Join(fmt.Errorf("make pipe: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &proofs{pipe: fds[0]}, fds[1], nil
}

// require says that no inspector has found this Target for this request, if so.
func (p *proofs) require(spec *probe.Spec, t *target.Target) error {
	if err := t.Validate(); err != nil {
		return problem.New(problem.InvalidArgument, "%v", err)
	}
	want, err := proofOf(spec, t)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read()
	for given := range slices.Chunk(p.bytes, len(want)) {
		if string(given) == string(want[:]) {
			return nil
		}
	}
	return problem.New(problem.PermissionDenied, "the target is not what the inspector found for this request: nothing is attached")
}

// read takes in what is in the pipe, of which only the last answers are kept.
func (p *proofs) read() {
	var b [maxProofs * len(proof{})]byte
	for {
		n, err := unix.Read(p.pipe, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		p.bytes = append(p.bytes, b[:n]...)
		if over := len(p.bytes) - len(b); over > 0 {
			over = (over + len(proof{}) - 1) / len(proof{}) * len(proof{})
			p.bytes = slices.Delete(p.bytes, 0, over)
		}
	}
}

func (p *proofs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.pipe)
	p.pipe = -1
}

// vouch tells the monitor of an answer that is about to be given.
func vouch(pipe int, spec *probe.Spec, t *target.Target) error {
	if err := t.Validate(); err != nil {
		return problem.New(problem.Internal, "%v", err)
	}
	sum, err := proofOf(spec, t)
	if err != nil {
		return err
	}
	for {
		// So few bytes are written whole or not at all (pipe(7), PIPE_BUF).
		_, err := unix.Write(pipe, sum[:])
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

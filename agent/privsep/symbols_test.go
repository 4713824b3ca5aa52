// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/symbol"
)

// OpenSymbols starts what names the addresses of a session.
func (a *remoteAgent) OpenSymbols(session string, _ *struct{}) error {
	h, err := a.holder(session)
	if err != nil {
		return err
	}
	a.symbols, err = a.client.Symbols(context.Background(), h.Holder)
	return err
}

// Lookup asks what OpenSymbols has started.
func (a *remoteAgent) Lookup(places []symbol.Place, reply *[]symbol.Location) (err error) {
	*reply, err = a.symbols.Lookup(context.Background(), places)
	return err
}

// ResolveBySymbols asks it what it is not for.
func (a *remoteAgent) ResolveBySymbols(session string, _ *struct{}) error {
	h, err := a.holder(session)
	if err != nil {
		return err
	}
	_, err = a.symbols.inspection.Resolve(context.Background(), specOf(h.PID(), time.Minute))
	return err
}

// TestSymbols names addresses in a process that has no privilege and does nothing else, of sessions that have asked for it.
func TestSymbols(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), time.Minute)
	plain, _ := s.hold(spec)
	if err := s.agent.Call("Agent.OpenSymbols", plain, new(struct{})); err == nil || !strings.Contains(err.Error(), "asked for stacks") {
		t.Errorf("of a session that has not asked for stacks: %v", err)
	}
	spec.Stack = true
	session, held := s.hold(spec)
	s.call("OpenSymbols", session, new(struct{}))
	var found []symbol.Location
	site := symbol.Place{Offset: held.Attached.Sites[0].FileOffset}
	s.call("Lookup", []symbol.Place{site, {Offset: 1 << 40}}, &found)
	if len(found) != 2 || len(found[0].Frames) == 0 || found[0].Frames[len(found[0].Frames)-1].Function != "main.Open" || len(found[1].Frames) != 0 {
		t.Errorf("%+v", found)
	}
	pid := processNamed(t, s.monitor, inspectorName)
	requireUnprivileged(t, pid, map[string]string{"Seccomp": "2"})
	if err := s.agent.Call("Agent.ResolveBySymbols", session, new(struct{})); err == nil || !strings.Contains(err.Error(), "0 addresses") {
		t.Errorf("it resolves: %v", err)
	}
	err := s.agent.Call("Agent.Lookup", make([]symbol.Place, MaxPlaces+1), &found)
	if err == nil || !strings.Contains(err.Error(), "want 1 to 256") {
		t.Errorf("too many addresses: %v", err)
	}

	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	requireGone(t, pid, time.Now().Add(time.Second))
	if err := s.agent.Call("Agent.Lookup", []symbol.Place{site}, &found); err == nil {
		t.Errorf("one that is gone says %+v", found)
	}
	s.call("Stop", session, new(struct{}))
	s.wait(session)
	for giveUp := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the monitor may not yet have heard of the end
		err := s.agent.Call("Agent.OpenSymbols", session, new(struct{}))
		if err != nil && strings.Contains(err.Error(), "no session that goes on") {
			break
		}
		if time.Now().After(giveUp) {
			t.Fatalf("of a session that is over: %v", err)
		}
	}
	s.call("Stop", plain, new(struct{}))
	s.wait(plain)
}

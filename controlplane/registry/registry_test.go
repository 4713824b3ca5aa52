// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	granted   = keyholev1.SessionState_SESSION_STATE_GRANTED
	attaching = keyholev1.SessionState_SESSION_STATE_ATTACHING
	attached  = keyholev1.SessionState_SESSION_STATE_ATTACHED
	ended     = keyholev1.SessionState_SESSION_STATE_ENDED
)

// A world is a registry on a real store, and what it ended by itself.
type world struct {
	*Registry
	t     *testing.T
	store *store.Store
	stop  context.CancelFunc

	mu    sync.Mutex
	ended []string
}

func open(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	w := &world{t: t, store: s}
	w.begin()
	return w
}

// begin opens the registry, again if it was open before.
func (w *world) begin() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := Open(ctx, w.store, func(m *keyholev1.Session) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = append(w.ended, m.GetId()+" "+m.GetSummary().GetEndedBy())
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Registry = r
	over := false
	w.stop = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := r.Wait(); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(func() { w.stop() })
}

func (w *world) endedHere() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended)
}

// create makes a session of one minute that was granted just now.
func (w *world) create(id, node string) {
	w.t.Helper()
	m := &keyholev1.Session{
		Id: id, Node: node, Requester: "ada", State: granted, Created: timestamppb.Now(),
		Spec: &keyholev1.Spec{Limits: &keyholev1.Limits{Ttl: durationpb.New(time.Minute)}},
	}
	if _, err := w.Create(w.t.Context(), m, []byte("grant of "+id), 7, "request of "+id); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) report(node string, m *keyholev1.Session) {
	w.t.Helper()
	if err := w.Report(w.t.Context(), node, m); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) session(id string) *keyholev1.Session {
	w.t.Helper()
	m, err := w.Session(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func code(err error) string {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p.Code
	}
	return fmt.Sprint(err)
}

func TestSessionsThatNobodyEnds(t *testing.T) {
	w := open(t)
	now := time.Now()
	for _, id := range []string{"unreached", "lost", "kept", "over"} {
		w.create(id, "n-"+id)
	}
	defer w.Connect(&keyholev1.Node{Name: "n-kept"}, func() {}).Close()
	for _, id := range []string{"lost", "kept", "over"} {
		w.report("n-"+id, &keyholev1.Session{Id: id, State: attached, Deadline: timestamppb.New(now.Add(time.Minute)), Summary: &keyholev1.Summary{}})
	}
	w.report("n-lost", &keyholev1.Session{Id: "lost", State: attached, Summary: &keyholev1.Summary{Hits: 3, CountsFinal: true}})
	w.report("n-over", &keyholev1.Session{Id: "over", State: ended, Summary: &keyholev1.Summary{EndedBy: event.EndStopped, CountsFinal: true}})

	w.expire(t.Context(), now.Add(reachTime-time.Second))
	if got := w.endedHere(); len(got) != 0 {
		t.Errorf("ended too early: %v", got)
	}
	w.expire(t.Context(), now.Add(reachTime+time.Second))
	w.expire(t.Context(), now.Add(time.Minute+lostGrace-time.Second))
	if got, want := w.endedHere(), []string{"unreached " + event.EndNotAttached}; !slices.Equal(got, want) {
		t.Errorf("ended %v, want %v", got, want)
	}
	w.expire(t.Context(), now.Add(time.Minute+lostGrace+time.Second))
	w.expire(t.Context(), now.Add(time.Hour))
	if got, want := w.endedHere(), []string{"unreached " + event.EndNotAttached, "lost " + event.EndAgentLost}; !slices.Equal(got, want) {
		t.Errorf("ended %v, want %v: each once", got, want)
	}
	if m := w.session("lost"); m.GetState() != ended || m.GetSummary().GetCountsFinal() || m.GetSummary().GetHits() != 3 || m.GetErrorCode() != problem.Unavailable {
		t.Errorf("the lost session is %v", m)
	}
	if m := w.session("over"); m.GetSummary().GetEndedBy() != event.EndStopped || !m.GetSummary().GetCountsFinal() {
		t.Errorf("a session that was over is %v", m)
	}
	if m := w.session("kept"); m.GetState() != attached {
		t.Errorf("a session whose node is there is %v", m)
	}
	// What has ended stays so, whatever its node says later.
	w.report("n-lost", &keyholev1.Session{Id: "lost", State: attached})
	if m := w.session("lost"); m.GetState() != ended {
		t.Errorf("the lost session is back: %v", m)
	}
}

// TestLastCountsStayWhenTheAgentDies: an agent that closes a session of the one before it has no counts; those that were shown last are
// what is known.
func TestLastCountsStayWhenTheAgentDies(t *testing.T) {
	w := open(t)
	for _, id := range []string{"closed", "done"} {
		w.create(id, "n")
		w.report("n", &keyholev1.Session{Id: id, State: attached, Summary: &keyholev1.Summary{}})
		w.report("n", &keyholev1.Session{Id: id, State: attached, Summary: &keyholev1.Summary{Hits: 7, Emitted: 5, Throttled: 2, Delivered: 5}})
	}
	w.report("n", &keyholev1.Session{Id: "closed", State: ended, Summary: &keyholev1.Summary{EndedBy: event.EndAgentLost}})
	w.report("n", &keyholev1.Session{Id: "done", State: ended, Summary: &keyholev1.Summary{Hits: 9, Emitted: 6, Throttled: 3, Delivered: 6, EndedBy: event.EndStopped, CountsFinal: true}})
	if got, want := w.session("closed").GetSummary(), (&keyholev1.Summary{Hits: 7, Emitted: 5, Throttled: 2, Delivered: 5, EndedBy: event.EndAgentLost}); !proto.Equal(got, want) {
		t.Errorf("after the agent died: %v, want %v", got, want)
	}
	if got, want := w.session("done").GetSummary(), (&keyholev1.Summary{Hits: 9, Emitted: 6, Throttled: 3, Delivered: 6, EndedBy: event.EndStopped, CountsFinal: true}); !proto.Equal(got, want) {
		t.Errorf("after the agent said so: %v, want %v", got, want)
	}
}

// TestReportsBeyondWhatThereIs: a node cannot keep a session from ending by what it says of it.
func TestReportsBeyondWhatThereIs(t *testing.T) {
	w := open(t)
	w.create("s", "n")
	if err := w.Report(t.Context(), "n", &keyholev1.Session{Id: "s", State: 99}); code(err) != problem.InvalidArgument {
		t.Errorf("a state that there is not: %v", err)
	}
	now := time.Now()
	w.report("n", &keyholev1.Session{Id: "s", State: attached, Deadline: timestamppb.New(now.Add(1000 * time.Hour)), Summary: &keyholev1.Summary{}})
	w.expire(t.Context(), now.Add(time.Minute+reachTime+lostGrace+2*time.Second))
	if got, want := w.endedHere(), []string{"s " + event.EndAgentLost}; !slices.Equal(got, want) {
		t.Errorf("with a deadline of weeks it ended %v, want %v", got, want)
	}
}

func TestDesiredSetIsWholeAndTheSame(t *testing.T) {
	w := open(t)
	w.create("a", "n")
	w.create("b", "n")
	w.create("c", "other")
	c := w.Connect(&keyholev1.Node{Name: "n"}, func() {})
	<-c.Poked()
	first := c.Desired()
	if len(first.GetGrants()) != 2 || first.GetGrants()[0].GetSessionId() != "a" || string(first.GetGrants()[1].GetEnvelope()) != "grant of b" {
		t.Errorf("desired %v", first)
	}
	w.report("n", &keyholev1.Session{Id: "a", State: attached})
	<-c.Poked()

	// The node comes back, and so does the control plane: it is told everything again, in the same words.
	replaced := make(chan struct{})
	second := w.Connect(&keyholev1.Node{Name: "n"}, func() { close(replaced) })
	if _, err := w.Ask(t.Context(), "absent", &keyholev1.Question{Id: "q"}); code(err) != problem.Unavailable {
		t.Errorf("a node that is not there is asked: %v", err)
	}
	c.Close() // the earlier stream ends later; the node stays connected
	if nodes := w.Nodes(); len(nodes) != 1 || nodes[0].GetSessions() != 2 {
		t.Errorf("nodes %v", nodes)
	}
	w.Connect(&keyholev1.Node{Name: "n"}, func() {}).Close()
	select {
	case <-replaced:
	default:
		t.Error("two streams of one node")
	}
	second.Close()
	w.stop()
	w.begin()
	again := w.Connect(&keyholev1.Node{Name: "n"}, func() {})
	defer again.Close()
	if set := again.Desired(); len(set.GetGrants()) != 2 || string(set.GetGrants()[0].GetEnvelope()) != "grant of a" || set.GetRevision() < first.GetRevision() {
		t.Errorf("after a restart: %v", set)
	}
	if err := w.Stop(t.Context(), "a", event.EndRevoked); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(t.Context(), "a", event.EndStopped); err != nil {
		t.Fatal(err)
	}
	if g := again.Desired().GetGrants()[0]; !g.GetStop() || g.GetStoppedBy() != event.EndRevoked {
		t.Errorf("the first to stop it is who stopped it: %v", g)
	}
	w.report("n", &keyholev1.Session{Id: "a", State: ended})
	if set := again.Desired(); len(set.GetGrants()) != 1 || set.GetGrants()[0].GetSessionId() != "b" {
		t.Errorf("what has ended is desired: %v", set)
	}
}

func TestCreateOnceForEachRequest(t *testing.T) {
	w := open(t)
	w.create("a", "n")
	m := &keyholev1.Session{Id: "twin", Requester: "ada", Spec: &keyholev1.Spec{}}
	earlier, err := w.Create(t.Context(), m, nil, 9, "request of a")
	if err != nil || earlier == nil || *earlier != (Earlier{"a", 7}) {
		t.Errorf("the same request again: %+v, %v", earlier, err)
	}
	if _, err := w.Session("twin"); code(err) != problem.NotFound {
		t.Errorf("it made a session all the same: %v", err)
	}
	m = &keyholev1.Session{Id: "b", Requester: "eve", Spec: &keyholev1.Spec{}}
	if earlier, err := w.Create(t.Context(), m, nil, 9, "request of a"); err != nil || earlier != nil {
		t.Errorf("somebody else's request of the same name: %+v, %v", earlier, err)
	}
}

func TestSlowWatcherLosesCopiesAndIsTold(t *testing.T) {
	w := open(t)
	w.create("a", "n")
	watcher, err := w.Watch("a")
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	const sent = watcherEvents + 10
	for i := range sent {
		if foreign := w.Deliver("n", []*keyholev1.Event{{SessionId: "a", GoroutineId: uint64(i)}}); foreign != 0 {
			t.Fatal("its own event is foreign")
		}
	}
	if foreign := w.Deliver("other", []*keyholev1.Event{{SessionId: "a"}}); foreign != 1 {
		t.Error("another node's event is delivered")
	}
	w.report("n", &keyholev1.Session{Id: "a", State: ended, Summary: &keyholev1.Summary{Emitted: sent, Delivered: sent, EndedBy: event.EndStopped}})
	var events uint64
	for {
		m, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := m.GetEvent(); e != nil {
			if e.GetGoroutineId() != events {
				t.Errorf("event %d comes as number %d", e.GetGoroutineId(), events)
			}
			events++
		}
		if s := m.GetSummary(); s != nil {
			if events != watcherEvents || s.GetDelivered() != watcherEvents || s.GetLostToClient() != 10 {
				t.Errorf("%d events came; the summary says %v", events, s)
			}
			break
		}
	}
	if s := w.session("a").GetSummary(); s.GetDelivered() != sent || s.GetLostToClient() != 0 {
		t.Errorf("one watcher's losses are everybody's: %v", s)
	}
}

func TestWatcherSeesCountsWhileItRuns(t *testing.T) {
	w := open(t)
	w.create("a", "n")
	watcher, err := w.Watch("a")
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	next := func() *keyholev1.Session {
		t.Helper()
		m, err := watcher.Next(t.Context())
		if err != nil || m.GetSession() == nil {
			t.Fatalf("got %v, %v; want the session", m, err)
		}
		return m.GetSession()
	}
	if m := next(); m.GetState() != granted {
		t.Errorf("at first %v", m)
	}
	w.report("n", &keyholev1.Session{Id: "a", State: attaching})
	if m := next(); m.GetState() != attaching {
		t.Errorf("then %v", m)
	}
	w.report("n", &keyholev1.Session{Id: "a", State: attaching, Summary: &keyholev1.Summary{Hits: 5}})
	if m := next(); m.GetSummary().GetHits() != 5 {
		t.Errorf("then %v", m)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := watcher.Next(ctx); !errors.Is(err, why) {
		t.Errorf("in the end %v, want %v", err, why)
	}
}

func TestQuestions(t *testing.T) {
	w := open(t)
	c := w.Connect(&keyholev1.Node{Name: "n"}, func() {})
	type result struct {
		answer *keyholev1.Answer
		err    error
	}
	ask := func(ctx context.Context, id string) <-chan result {
		got := make(chan result, 1)
		go func() {
			a, err := w.Ask(ctx, "n", &keyholev1.Question{Id: id})
			got <- result{a, err}
		}()
		return got
	}
	first := ask(t.Context(), "first")
	q := <-c.Questions()
	c.Answered(&keyholev1.Answer{QuestionId: "nobody's"})
	c.Answered(&keyholev1.Answer{QuestionId: q.GetId()})
	c.Answered(&keyholev1.Answer{QuestionId: q.GetId()}) // once is enough
	if r := <-first; r.err != nil || r.answer.GetQuestionId() != "first" {
		t.Errorf("got %+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r := <-ask(ctx, "slow"); code(r.err) != problem.Unavailable {
		t.Errorf("no answer in time: %v", r.err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if r := <-ask(ctx, "given up"); !errors.Is(r.err, context.Canceled) {
		t.Errorf("given up: %v", r.err)
	}
	last := ask(t.Context(), "last")
	<-c.Questions()
	c.Close()
	if r := <-last; code(r.err) != problem.Unavailable {
		t.Errorf("the node is gone: %v", r.err)
	}
}

func TestLostStoreEndsTheRegistry(t *testing.T) {
	changes := make(chan store.Value)
	close(changes)
	r := &Registry{changed: changes, done: make(chan struct{})}
	r.run(t.Context())
	if r.Wait() == nil {
		t.Error("it goes on blind")
	}
}

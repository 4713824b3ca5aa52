// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
)

// canaryHits is how often the secret is passed to the probed function.
const canaryHits = 100_000

// places are where a secret was looked for, each with what was found there.
type places map[string][]string

// look searches everything that is ours outside the kernel's own memory, and what user space can read of that.
func look(d *devtest.Dev, t testing.TB, needle *testkit.Needle, when string, found places) {
	t.Helper()
	for _, name := range []string{"keyhole-monitor", "keyhole-agent", "kh-holder"} {
		found[when+": "+name] = needle.InMemory(t, d.ProcessID(name))
	}
	found[when+": control plane"] = needle.InMemory(t, d.PID())
	for name, bytes := range testkit.MapContents(t, d.ProcessID("kh-holder")) {
		found[when+": map "+name] = in(needle, bytes)
	}
}

func in(needle *testkit.Needle, b []byte) []string {
	count, first := needle.In(b)
	if count == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d places from byte %d on", count, first)}
}

// TestNoRedactedByteLeavesTheKernel passes a secret in a dropped and in a digested argument, and looks for it everywhere.
// With rules that keep the values the same search has to find it, in each place where plain values belong.
func TestNoRedactedByteLeavesTheKernel(t *testing.T) {
	t.Run("redacted", func(t *testing.T) {
		canary, key := searchCanary(t, "version: 1\nrules:\n  - {id: test/note, name: note, action: digest}\n")
		for place, found := range canary {
			for _, f := range found {
				t.Errorf("the secret is in %s: %s", place, f)
			}
		}
		for place, found := range key {
			if strings.HasSuffix(place, "map kh_config") {
				continue // where the program reads it: frozen, and no descriptor of it outlives the loader
			}
			for _, f := range found {
				t.Errorf("the digest's key is in %s: %s", place, f)
			}
		}
	})
	t.Run("kept", func(t *testing.T) {
		canary, _ := searchCanary(t, "version: 1\nrules:\n  - {id: test/account, name: account, action: keep}\n  - {id: test/note, name: note, action: keep}\n")
		for _, place := range []string{
			"waiting: map kh_ring", "decoded: kh-holder", "decoded: keyhole-agent", "decoded: control plane",
			"spans", "output of trace",
		} {
			found, searched := canary[place]
			if !searched {
				t.Errorf("%s was not searched", place)
			} else if len(found) == 0 {
				t.Errorf("the plain value was not found in %s: the search there proves nothing", place)
			}
		}
		for _, place := range []string{"audit log", "waiting: keyhole-monitor", "decoded: keyhole-monitor", "waiting: map kh_scratch", "log of keyhole dev"} {
			if found, searched := canary[place]; !searched {
				t.Errorf("%s was not searched", place)
			} else if len(found) > 0 {
				t.Errorf("the plain value is in %s, where no value belongs: %v", place, found)
			}
		}
	})
}

// searchCanary runs a session with 100,000 hits under the owner's rules and returns where the secret and the digest's key were found.
func searchCanary(t *testing.T, rules string) (canary, key places) {
	t.Helper()
	secret := randomText(t)
	needle := testkit.NewNeedle([]byte(secret))

	receiver := startReceiver(t)
	flags := []string{}
	if rules != "" {
		file := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--redaction", file)
	}
	d := devtest.Start(t, receiver.Environment(), append(flags, "--ceiling", devtest.BusyNode(t))...)
	vault := testkit.Start(t, testkit.BuildGo(t, "test/targets/vault"))
	vault.Expect("ready", 10*time.Second)
	vault.Send("secret " + secret)
	vault.Expect("ok", 10*time.Second)

	tr := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--arg", "account", "--arg", "note", "--arg", "n", "--budget", "1000%",
		"--rate", "1000000/s", "--max-bytes", "1073741824", "--for", "5m")
	var output strings.Builder
	var reading sync.WaitGroup
	var sum *devtest.Summary
	reading.Go(func() { sum = collect(tr, &output) })

	digestKey := testkit.NewNeedle(testkit.DigestKey(t, d.ProcessID("kh-holder")))
	canary, key = make(places), make(places)

	// Events wait undecoded: the reader stands still.
	holder := d.ProcessID("kh-holder")
	stop(t, holder, syscall.SIGSTOP)
	vault.Send("call 1000")
	vault.Expect("called", time.Minute)
	look(d, t, needle, "waiting", canary)
	look(d, t, digestKey, "waiting", key)
	stop(t, holder, syscall.SIGCONT)

	vault.Send(fmt.Sprintf("call %d", canaryHits-1000))
	vault.Expect("called", 5*time.Minute)
	waitEmpty(t, d)
	look(d, t, needle, "decoded", canary)
	look(d, t, digestKey, "decoded", key)

	d.MustRun("stop", "--all")
	reading.Wait()
	if sum == nil {
		t.Fatalf("trace ended without a summary\n%s", tr.Stderr())
	}
	sum.RequireSum(t)
	if sum.Hits != canaryHits || sum.Emitted == 0 {
		t.Fatalf("%d calls were made; the session counts %+v", canaryHits, sum)
	}
	outside := map[string][]byte{
		"output of trace":    []byte(output.String() + tr.Stderr()),
		"log of keyhole dev": []byte(d.Stderr()),
		"spans":              received(t, receiver),
		"audit log":          files(t, d.Dir),
		"audit records":      []byte(d.MustRun("audit", "ls", "-o", "json")),
	}
	for place, b := range outside {
		if len(b) == 0 && place != "log of keyhole dev" {
			t.Errorf("%s is empty: nothing was searched", place)
		}
		canary[place], key[place] = in(needle, b), in(digestKey, b)
	}
	return canary, key
}

// collect reads a trace to its end, keeps what it printed and returns its summary.
func collect(tr *devtest.Trace, output *strings.Builder) *devtest.Summary {
	var last *devtest.Summary
	for line := range tr.Lines() {
		if output.Len() < 64<<20 {
			output.WriteString(line + "\n")
		}
		var u devtest.Update
		if json.Unmarshal([]byte(line), &u) == nil && u.Summary != nil {
			last = u.Summary
		}
	}
	return last
}

// waitEmpty waits until the reader has taken everything out of the ring.
func waitEmpty(t *testing.T, d *devtest.Dev) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if testkit.RingPending(t, d.ProcessID("kh-holder")) == 0 {
			time.Sleep(500 * time.Millisecond) // for the last batch on its way to the client
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ring is not empty\n%s", d.Stderr())
		}
	}
}

// files is what all files below a directory hold: the log's tiles, the spool, the store, the keys.
func files(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func stop(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

func startReceiver(t *testing.T) *otlptest.Receiver {
	t.Helper()
	receiver, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	return receiver
}

// received is all that came to the receiver, as it came.
func received(t *testing.T, receiver *otlptest.Receiver) []byte {
	t.Helper()
	var all []byte
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, s := range receiver.Spans() {
		add(s.Span)
		add(s.Resource)
	}
	for _, r := range receiver.LogRecords() {
		add(r.LogRecord)
		add(r.Resource)
	}
	return all
}

// randomText is 32 bytes that are the same in JSON, in protobuf and in memory.
func randomText(t *testing.T) string {
	t.Helper()
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// SPDX-License-Identifier: Apache-2.0

package grant

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

// A world is a control plane with its log, and a node that pins both.
type world struct {
	key      ed25519.PrivateKey
	log      note.Signer
	verifier Verifier
}

func newWorld(t testing.TB, seed int64) *world {
	t.Helper()
	random := rand.New(rand.NewSource(seed))
	public, private, err := ed25519.GenerateKey(random)
	if err != nil {
		t.Fatal(err)
	}
	skey, vkey, err := note.GenerateKey(random, "keyhole.test/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return &world{private, signer, Verifier{Keys: []ed25519.PublicKey{public}, LogKey: logKey, Node: "n-1"}}
}

func (w *world) grant(t testing.TB) *Grant {
	t.Helper()
	rules, err := redact.ParsePolicy([]byte(`{version: 1, rules: [{name: card, action: "suffix:4"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := redact.Shipped().WithOwnerPolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	g := &Grant{
		SessionID: "s-7f3k", Revision: 1, Node: "n-1", Requester: "spiffe://keyhole.dev/user/ann",
		Spec: probe.Spec{
			Target: probe.Selector{Kind: probe.SelectPID, PID: 4711}, Function: "Cart.Checkout", Arguments: []string{"card"}, Reason: "INC-4211",
		},
		Rules: *set, TTL: time.Minute, PolicyDigest: set.Digest(), Issued: time.Unix(1_800_000_000, 0).UTC(),
	}
	w.record(t, g, 3, 8, func(*audit.Record) {})
	return g
}

// record puts a grant's intent at an index of a log of some size, and the proof into the grant.
func (w *world) record(t testing.TB, g *Grant, index, size int, change func(*audit.Record)) {
	t.Helper()
	r := audit.Record{
		Kind: audit.Granted, Time: time.Unix(1_800_000_000, 0), SessionID: g.SessionID, Actor: g.Requester, Node: g.Node,
		Details: g.Evidence(),
	}
	change(&r)
	leaf, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var hashes [][]byte
	for i := range size {
		data := fmt.Appendf(nil, "record %d", i)
		if i == index {
			data = leaf
		}
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(data))
	}
	g.Intent = Intent{Index: uint64(index), Leaf: leaf, Proof: path(index, hashes), Checkpoint: w.checkpoint(t, w.log.Name(), size, root(hashes))}
}

func (w *world) checkpoint(t testing.TB, origin string, size int, hash []byte) []byte {
	t.Helper()
	text := log.Checkpoint{Origin: origin, Size: uint64(size), Hash: hash}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, w.log)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// root and path are RFC 6962, section 2.1, word for word.
func root(hashes [][]byte) []byte {
	if len(hashes) == 1 {
		return hashes[0]
	}
	k := split(len(hashes))
	return rfc6962.DefaultHasher.HashChildren(root(hashes[:k]), root(hashes[k:]))
}

func path(m int, hashes [][]byte) [][]byte {
	if len(hashes) == 1 {
		return nil
	}
	k := split(len(hashes))
	if m < k {
		return append(path(m, hashes[:k]), root(hashes[k:]))
	}
	return append(path(m-k, hashes[k:]), root(hashes[:k]))
}

func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func (w *world) sign(t testing.TB, g *Grant) []byte {
	t.Helper()
	envelope, err := Sign(*g, w.key)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestSignAndVerify(t *testing.T) {
	w := newWorld(t, 1)
	for _, at := range [][2]int{{0, 1}, {0, 2}, {3, 8}, {6, 7}, {4, 5}, {12, 13}} {
		g := w.grant(t)
		w.record(t, g, at[0], at[1], func(*audit.Record) {})
		got, err := Verify(w.sign(t, g), w.verifier)
		if err != nil {
			t.Fatalf("leaf %d of %d: %v", at[0], at[1], err)
		}
		if got.Rules.Digest() != g.Rules.Digest() {
			t.Error("the rules became others")
		}
		got.Rules, g.Rules = redact.Ruleset{}, redact.Ruleset{}
		if g.Intent.Proof == nil {
			g.Intent.Proof = got.Intent.Proof // none is null or empty
		}
		if !reflect.DeepEqual(got, g) {
			t.Errorf("got  %+v\nwant %+v", got, g)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	w := newWorld(t, 1)
	for what, change := range map[string]func(*Grant){
		"no session":                 func(g *Grant) { g.SessionID = "" },
		"a session that is a path":   func(g *Grant) { g.SessionID = "../x" },
		"revision 0":                 func(g *Grant) { g.Revision = 0 },
		"no node":                    func(g *Grant) { g.Node = "" },
		"another node's request":     func(g *Grant) { g.Spec.Target.Node = "n-2" },
		"no requester":               func(g *Grant) { g.Requester = "" },
		"a requester in colour":      func(g *Grant) { g.Requester = "\x1b[2J" },
		"a wrong request":            func(g *Grant) { g.Spec.Function = "" },
		"no time to live":            func(g *Grant) { g.TTL = 0 },
		"more time than asked for":   func(g *Grant) { g.TTL = 5*time.Minute + 1 },
		"a policy without a digest":  func(g *Grant) { g.PolicyDigest = "" },
		"a policy of another digest": func(g *Grant) { g.PolicyDigest = "md5:00" },
	} {
		g := w.grant(t)
		change(g)
		if _, err := Sign(*g, w.key); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
	if _, err := Sign(*w.grant(t), nil); err == nil {
		t.Error("signed without a key")
	}
}

// envelopeOf signs whatever payload of whatever type.
func (w *world) envelopeOf(t *testing.T, payloadType string, payload []byte) []byte {
	t.Helper()
	data, err := json.Marshal(dsse.Envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.key, dsse.PAE(payloadType, payload)))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestVerifyRefuses: each grant is good but for one thing.
func TestVerifyRefuses(t *testing.T) {
	w, stranger := newWorld(t, 1), newWorld(t, 2)
	// changed signs a grant that Sign would not.
	changed := func(change func(*Grant)) []byte {
		g := w.grant(t)
		change(g)
		payload, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		return w.envelopeOf(t, PayloadType, payload)
	}
	recorded := func(change func(*audit.Record)) []byte {
		return changed(func(g *Grant) { w.record(t, g, 3, 8, change) })
	}
	payload, err := json.Marshal(w.grant(t))
	if err != nil {
		t.Fatal(err)
	}
	good := w.envelopeOf(t, PayloadType, payload)
	if _, err := Verify(good, w.verifier); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		envelope []byte
		verifier Verifier
		says     string
	}{
		"nothing":                    {nil, w.verifier, "not an envelope"},
		"no JSON":                    {[]byte("grant"), w.verifier, "not an envelope"},
		"an unknown field":           {[]byte(`{"payloadType":"x","alg":"none"}`), w.verifier, "not an envelope"},
		"something behind it":        {append(bytes.Clone(good), "{}"...), w.verifier, "follows"},
		"a giant":                    {make([]byte, maxEnvelope+1), w.verifier, "at most"},
		"no signature":               {[]byte(`{"payloadType":"` + PayloadType + `","payload":"e30="}`), w.verifier, "not signed"},
		"many signatures":            {[]byte(`{"payloadType":"` + PayloadType + `","payload":"e30=","signatures":[{},{},{},{},{},{},{},{},{}]}`), w.verifier, "9 signatures"},
		"a stranger's signature":     {stranger.envelopeOf(t, PayloadType, payload), w.verifier, "not signed by a control plane"},
		"another type":               {w.envelopeOf(t, "application/vnd.in-toto+json", payload), w.verifier, "holds"},
		"a changed type":             {bytes.Replace(w.envelopeOf(t, "x", payload), []byte(`"x"`), []byte(`"`+PayloadType+`"`), 1), w.verifier, "not signed"},
		"no pinned key":              {good, Verifier{LogKey: w.verifier.LogKey, Node: "n-1"}, "no key"},
		"a pinned key cut short":     {good, Verifier{Keys: []ed25519.PublicKey{{1, 2}}, LogKey: w.verifier.LogKey, Node: "n-1"}, "no key"},
		"no key of the log":          {good, Verifier{Keys: w.verifier.Keys, Node: "n-1"}, "no key of the log"},
		"a payload that is no grant": {w.envelopeOf(t, PayloadType, []byte(`[]`)), w.verifier, "payload"},
		"a grant with an extra":      {w.envelopeOf(t, PayloadType, []byte(`{"sudo":true}`)), w.verifier, "sudo"},
		"another node":               {good, Verifier{Keys: w.verifier.Keys, LogKey: w.verifier.LogKey, Node: "n-2"}, "for node n-1"},
		"revision 0":                 {changed(func(g *Grant) { g.Revision = 0 }), w.verifier, "revision"},
		"a wrong request":            {changed(func(g *Grant) { g.Spec.Limits.TTL = 1000 * time.Hour }), w.verifier, "--for"},
		"more time than asked for":   {changed(func(g *Grant) { g.TTL = time.Hour }), w.verifier, "TTL"},
		"rules that lower the floor": {w.envelopeOf(t, PayloadType, bytes.Replace(payload, []byte(`owner/1`), []byte(`names/secret`), 1)), w.verifier, "built in"},
		"another request":            {changed(func(g *Grant) { g.Spec.Arguments = []string{"password"} }), w.verifier, "another request"},
		"another session":            {changed(func(g *Grant) { g.SessionID = "s-other" }), w.verifier, "s-7f3k"},
		"another session's record":   {recorded(func(r *audit.Record) { r.SessionID = "s-other" }), w.verifier, "s-other"},
		"another node's record":      {recorded(func(r *audit.Record) { r.Node = "n-2" }), w.verifier, "n-2"},
		"another's request":          {recorded(func(r *audit.Record) { r.Actor = "spiffe://keyhole.dev/user/eve" }), w.verifier, "eve"},
		"another requester":          {changed(func(g *Grant) { g.Requester = "spiffe://keyhole.dev/user/eve" }), w.verifier, "by \"spiffe"},
		"another policy":             {changed(func(g *Grant) { g.PolicyDigest = "sha256:" + strings.Repeat("1", 64) }), w.verifier, "its policyDigest"},
		"other rules":                {changed(func(g *Grant) { g.Rules = *redact.Shipped() }), w.verifier, "its rulesDigest"},
		"another kind of record":     {recorded(func(r *audit.Record) { r.Kind = audit.Denied }), w.verifier, "denied"},
		"a record of nothing":        {recorded(func(r *audit.Record) { r.Details = nil }), w.verifier, "another request"},
		"no proof":                   {changed(func(g *Grant) { g.Intent = Intent{} }), w.verifier, "not proved"},
		"a proof cut short":          {changed(func(g *Grant) { g.Intent.Proof = g.Intent.Proof[1:] }), w.verifier, "proof size"},
		"a proof too long":           {changed(func(g *Grant) { g.Intent.Proof = append(g.Intent.Proof, make([]byte, 32)) }), w.verifier, "proof size"},
		"a proof without end":        {changed(func(g *Grant) { g.Intent.Proof = make([][]byte, 65) }), w.verifier, "out of bounds"},
		"a hash of 31 bytes":         {changed(func(g *Grant) { g.Intent.Proof[0] = make([]byte, 31) }), w.verifier, "out of bounds"},
		"another hash":               {changed(func(g *Grant) { g.Intent.Proof[0][0] ^= 1 }), w.verifier, "root"},
		"another index":              {changed(func(g *Grant) { g.Intent.Index++ }), w.verifier, "root"},
		"an index beyond the log":    {changed(func(g *Grant) { g.Intent.Index = 1 << 63 }), w.verifier, "beyond size"},
		"another leaf":               {changed(func(g *Grant) { g.Intent.Leaf = append(g.Intent.Leaf, ' ') }), w.verifier, "root"},
		"a checkpoint unsigned": {changed(func(g *Grant) {
			g.Intent.Checkpoint, _, _ = bytes.Cut(g.Intent.Checkpoint, []byte("\n\n"))
		}), w.verifier, "checkpoint"},
		"a checkpoint of a stranger's log": {changed(func(g *Grant) { stranger.record(t, g, 3, 8, func(*audit.Record) {}) }), w.verifier, "checkpoint"},
		"a checkpoint of another log": {changed(func(g *Grant) {
			g.Intent.Checkpoint = w.checkpoint(t, "elsewhere", 8, make([]byte, 32))
		}), w.verifier, "checkpoint"},
	} {
		t.Run(what, func(t *testing.T) {
			g, err := Verify(c.envelope, c.verifier)
			if g != nil || err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(c.says)) {
				t.Fatalf("%+v, error %v; want one that says %q", g, err, c.says)
			}
			if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != problem.PermissionDenied {
				t.Errorf("%#v is not a denial", err)
			}
		})
	}
}

// TestSeveralKeys: during a change of keys a node pins two, and an envelope may carry two signatures.
func TestSeveralKeys(t *testing.T) {
	w, next := newWorld(t, 1), newWorld(t, 2)
	w.verifier.Keys = append(w.verifier.Keys, next.verifier.Keys[0], next.verifier.Keys[0])
	g := w.grant(t)
	for _, key := range []ed25519.PrivateKey{w.key, next.key} {
		envelope, err := Sign(*g, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(envelope, w.verifier); err != nil {
			t.Error(err)
		}
	}
	var both, second dsse.Envelope
	if err := errors.Join(json.Unmarshal(w.sign(t, g), &both), json.Unmarshal(next.sign(t, g), &second)); err != nil {
		t.Fatal(err)
	}
	both.Signatures = append(both.Signatures, second.Signatures...)
	envelope, err := json.Marshal(both)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(envelope, w.verifier); err != nil {
		t.Error(err)
	}
}

// FuzzVerify: no bytes but those of a signed grant are believed, and none make the node fall over. What a thief of the
// signing key could write is fuzzed by the second argument.
func FuzzVerify(f *testing.F) {
	w := newWorld(f, 1)
	g := w.grant(f)
	payload, err := json.Marshal(g)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w.sign(f, g), payload)
	f.Add([]byte(`{"payloadType":"","payload":"","signatures":[]}`), []byte(`{"intent":{"checkpoint":"AA=="}}`))
	f.Fuzz(func(t *testing.T, envelope, payload []byte) {
		if got, err := Verify(envelope, w.verifier); err == nil && got.Spec.Digest() != g.Spec.Digest() {
			t.Errorf("a grant that nobody signed: %+v", got)
		}
		signature := ed25519.Sign(w.key, dsse.PAE(PayloadType, payload))
		signed, err := json.Marshal(dsse.Envelope{
			PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload),
			Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(signature)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Verify(signed, w.verifier)
		if err != nil {
			return
		}
		if got.Node != "n-1" || got.SessionID != "s-7f3k" || got.Spec.Digest() != g.Spec.Digest() || got.TTL > probe.DefaultTTL {
			t.Errorf("a grant that is not on record: %+v", got)
		}
	})
}

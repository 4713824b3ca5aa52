// SPDX-License-Identifier: Apache-2.0

// Package audit knows what is put on record about a session: the records themselves, the chain that a node ties its own
// with, and what has to be true of all of them together. It reads and judges bytes; who writes them is package audit
// at the root of the module, who keeps them audit/tlog.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Kind is what a record says has happened, or is about to.
type Kind string

// The kinds of record. The control plane writes Requested to Read, a node the others.
const (
	Requested     Kind = "requested"       // a caller asks for a probe
	Granted       Kind = "granted"         // the intent: a node is about to be permitted to attach it
	Denied        Kind = "denied"          // a caller was turned away
	StopRequested Kind = "stop_requested"  // a caller wants a session to end
	Read          Kind = "read"            // a caller begins to see a session's values
	Credential    Kind = "credential"      // an identity or a node's key was taken note of
	NotAttached   Kind = "not_attached"    // the node was not reached in time
	AgentLost     Kind = "agent_lost"      // the node was not heard of again; its own records may still come
	Refused       Kind = "refused"         // a node does not do what it was told, or what it sent is not believed
	AboutToAttach Kind = "about_to_attach" // durable before the probe attaches
	Attached      Kind = "attached"        // durable before the first event is handed on
	Tripped       Kind = "tripped"         // it was over its budget, and is detached for that
	Detached      Kind = "detached"        // the links are closed
)

// A Record is one fact. Its JSON, without spaces and in this order of fields, is what is hashed and signed: Parse accepts no
// other form of it. No record ever holds a captured value.
type Record struct {
	Kind      Kind              `json:"kind"`
	Time      time.Time         `json:"time"` // wall time where the fact was noted, UTC
	SessionID string            `json:"sessionId,omitempty"`
	Actor     string            `json:"actor,omitempty"` // the identity that acted
	Node      string            `json:"node,omitempty"`
	Details   map[string]string `json:"details,omitempty"`
	Chain     *Link             `json:"chain,omitempty"` // of a node's own records
}

// MaxRecord is the most bytes that a record has. Fields from outside are cut before they get into one.
const MaxRecord = 32 << 10

// Marshal returns the record's one form. What is not UTF-8 in its texts, as a process's name may be, is replaced: JSON has no
// form for it that reads back.
func (r *Record) Marshal() ([]byte, error) {
	c := *r
	c.Time = r.Time.UTC()
	c.Kind = Kind(valid(string(r.Kind)))
	c.SessionID, c.Actor, c.Node = valid(r.SessionID), valid(r.Actor), valid(r.Node)
	if r.Details != nil {
		c.Details = make(map[string]string, len(r.Details))
		for name, text := range r.Details {
			c.Details[valid(name)] = valid(text)
		}
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("write audit record: %w", err)
	}
	if len(data) > MaxRecord {
		return nil, fmt.Errorf("write audit record: %d bytes, at most %d", len(data), MaxRecord)
	}
	return data, nil
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// Parse reads a record in the form that Marshal gives it.
func Parse(data []byte) (*Record, error) {
	if len(data) > MaxRecord {
		return nil, fmt.Errorf("read audit record: %d bytes, at most %d", len(data), MaxRecord)
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("read audit record: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read audit record: more than one value")
	}
	if r.Kind == "" {
		return nil, errors.New("read audit record: it says nothing")
	}
	if again, err := r.Marshal(); err != nil || !bytes.Equal(again, data) {
		return nil, errors.New("read audit record: not in its one form")
	}
	return &r, nil
}

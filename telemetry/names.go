// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// The names of all attributes that Keyhole exports, beside those of the resource. Where OpenTelemetry has a name for it,
// it is that one; the others begin with "keyhole.".
const (
	Function     = semconv.CodeFunctionNameKey // code.function.name: as the linker knows it
	ProcessID    = semconv.ProcessPIDKey       // process.pid
	ThreadID     = semconv.ThreadIDKey         // thread.id
	ProcessName  = attribute.Key("process.executable.name")
	SessionID    = attribute.Key("keyhole.session.id")
	ProbeID      = attribute.Key("keyhole.probe.id")
	PolicyDigest = attribute.Key("keyhole.policy.digest") // the redaction rules that applied
	AttachPoint  = attribute.Key("keyhole.attach_point")  // where in the function: "entry"
	GoroutineID  = attribute.Key("keyhole.goroutine.id")

	// Of an audit copy. Its event name is AuditEvent and the record's kind, its body the record's very bytes in the log.
	AuditIndex      = attribute.Key("keyhole.audit.index")      // of the leaf in the log
	AuditCheckpoint = attribute.Key("keyhole.audit.checkpoint") // a signed checkpoint that covers the leaf
	AuditActor      = attribute.Key("keyhole.audit.actor")      // who did it
	AuditNode       = attribute.Key("keyhole.audit.node")       // on which node; absent if on none
	AuditEvent      = "keyhole.audit."                          // + kind
)

// Argument is the attribute that holds a captured argument, named by its path: "keyhole.arg.c.user.email".
func Argument(path string) attribute.Key { return attribute.Key("keyhole.arg." + path) }

// ArgumentRedaction says what was done to the argument and by which rule: "suffix:4 payments/card".
func ArgumentRedaction(path string) attribute.Key { return Argument(path) + ".redaction" }

// ArgumentMissing says why the argument has no value.
func ArgumentMissing(path string) attribute.Key { return Argument(path) + ".missing" }

// ArgumentTruncated is true if the argument was longer than what was captured of it.
func ArgumentTruncated(path string) attribute.Key { return Argument(path) + ".truncated" }

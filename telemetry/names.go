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
	Stack        = semconv.CodeStacktraceKey   // code.stacktrace: a line for each call, the innermost first
	ProcessID    = semconv.ProcessPIDKey       // process.pid
	ThreadID     = semconv.ThreadIDKey         // thread.id
	ProcessName  = attribute.Key("process.executable.name")
	SessionID    = attribute.Key("keyhole.session.id")
	ProbeID      = attribute.Key("keyhole.probe.id")
	PolicyDigest = attribute.Key("keyhole.policy.digest") // the redaction rules that applied
	AttachPoint  = attribute.Key("keyhole.attach_point")  // where in the function: "entry"
	GoroutineID  = attribute.Key("keyhole.goroutine.id")

	// Of what is counted.
	ValuePath    = attribute.Key("keyhole.value.path")    // the number whose histogram it is
	GroupMissing = attribute.Key("keyhole.group.missing") // why the value of these calls could not be read
	GroupOther   = attribute.Key("keyhole.group.other")   // true: calls with values beyond those that there was room for

	// Of an audit copy. Its event name is AuditEvent and the record's kind, its body the record's very bytes in the log.
	AuditIndex      = attribute.Key("keyhole.audit.index")      // of the leaf in the log
	AuditCheckpoint = attribute.Key("keyhole.audit.checkpoint") // a signed checkpoint that covers the leaf
	AuditActor      = attribute.Key("keyhole.audit.actor")      // who did it
	AuditNode       = attribute.Key("keyhole.audit.node")       // on which node; absent if on none
	AuditEvent      = "keyhole.audit."                          // + kind
)

// Argument is the attribute that holds a captured argument, named by its path: "keyhole.arg.c.user.email".
func Argument(path string) attribute.Key { return attribute.Key("keyhole.arg." + path) }

// Result is the attribute that holds a captured result: "keyhole.ret.err".
func Result(path string) attribute.Key { return attribute.Key("keyhole.ret." + path) }

// Redaction says what was done to a captured value and by which rule: "suffix:4 payments/card".
func Redaction(value attribute.Key) attribute.Key { return value + ".redaction" }

// Missing says why there is no value.
func Missing(value attribute.Key) attribute.Key { return value + ".missing" }

// Truncated is true if the value was longer than what was captured of it.
func Truncated(value attribute.Key) attribute.Key { return value + ".truncated" }

// SPDX-License-Identifier: Apache-2.0

// Package view says what is shown of each answer of a control plane: lines for people, objects for programs. It decides what
// is told in which words; where it goes, and when, is its caller's business.
package view

import (
	"strings"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/event"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// hidden stands for what was taken away from a value.
const hidden = "····"

// Value is one captured value in a cell. It says whether it is the whole value, a part, or something in its place.
func Value(v *keyholev1.Value) table.Span {
	action := v.GetRedaction().GetAction()
	switch {
	case v.GetMissing() == event.Redacted, v.GetMissing() == event.NotInSet:
		return table.Span{Text: "withheld (" + action + ")", Style: table.Dim}
	case v.GetMissing() != "":
		return table.Span{Text: v.GetMissing(), Style: table.Warn}
	}
	text := v.GetValue()
	if v.GetTruncated() {
		text += "…"
	}
	kind, _, _ := strings.Cut(action, ":")
	switch {
	case v.GetKind() == event.KindDigest:
		return table.Span{Text: "#" + text, Style: table.Dim}
	case kind == "bucket" && strings.HasPrefix(text, "-"):
		return table.Span{Text: "≤" + text, Style: table.Dim}
	case kind == "bucket":
		return table.Span{Text: "≥" + text, Style: table.Dim}
	case kind == "suffix":
		return table.Text(hidden + text)
	case kind == "prefix":
		return table.Text(text + hidden)
	case kind == "length":
		return table.Span{Text: hidden + "(" + text + ")", Style: table.Dim}
	case v.GetKind() == event.KindLength:
		return table.Text("len " + text)
	case v.GetKind() == event.KindString && (text == "" || strings.TrimSpace(text) != text):
		return table.Text(`"` + text + `"`) // else one could not see that it is there, or where it ends
	}
	return table.Text(text)
}

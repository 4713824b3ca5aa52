// SPDX-License-Identifier: Apache-2.0

package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// JSON is a message as one JSON object on one line: the names of protojson, zero values written, 64-bit integers as strings.
func JSON(m proto.Message) ([]byte, error) {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return oneLine(data)
}

// RecordJSON is a record of the log as one JSON object on one line.
func RecordJSON(e Entry) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return oneLine(data)
}

// oneLine takes out the spaces that protojson sprinkles in, and escapes what a terminal would act on: JSON asks for that
// only below U+0020. Such characters occur within strings only, where an escape means the same.
func oneLine(data []byte) ([]byte, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	out := make([]byte, 0, compact.Len()+1)
	for _, r := range compact.String() {
		switch {
		case unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return append(out, '\n'), nil
}

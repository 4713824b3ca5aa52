// SPDX-License-Identifier: Apache-2.0

// Package frame is how our own processes talk to each other: values as JSON, each behind its length. The other side may
// be less trusted, so a frame has a greatest length, is read no further than it says, and is refused if it
// holds a field that its reader does not know.
package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxBytes is the greatest length of a frame's JSON.
const MaxBytes = 8 << 20

const headerBytes = 4 // big-endian length of what follows

// ErrTooMany is returned for a frame with more values in it than its reader expects.
var ErrTooMany = errors.New("frame has too many values in it")

// ErrTooLong is returned for a frame of more than MaxBytes. What follows in the stream cannot be read any more.
var ErrTooLong = errors.New("frame is too long")

// Marshal returns v as one frame.
func Marshal(v any) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, headerBytes, 512))
	if err := json.NewEncoder(b).Encode(v); err != nil {
		return nil, fmt.Errorf("write frame: %w", err)
	}
	n := b.Len() - headerBytes
	if n > MaxBytes {
		return nil, fmt.Errorf("write frame: %w: %d bytes, at most %d", ErrTooLong, n, MaxBytes)
	}
	binary.BigEndian.PutUint32(b.Bytes(), uint32(n))
	return b.Bytes(), nil
}

// Write writes v as one frame, in one call of w's Write.
func Write(w io.Writer, v any) error {
	b, err := Marshal(v)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// Read reads one frame into v. At the end of the stream it returns io.EOF itself, in the middle of a frame an error that
// wraps io.ErrUnexpectedEOF. Memory grows with what arrives, not with what the header promises.
func Read(r io.Reader, v any) error { return ReadAtMost(r, v, MaxBytes) }

// ReadAtMost is Read with a bound on how many values a frame may hold: few bytes of JSON can become a value that takes hundreds.
func ReadAtMost(r io.Reader, v any, values int) error {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(header[:])
	if n > MaxBytes {
		return fmt.Errorf("read frame: %w: %d bytes, at most %d", ErrTooLong, n, MaxBytes)
	}
	var body bytes.Buffer
	if got, err := io.CopyN(&body, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read frame: %d of %d bytes: %w", got, n, err)
	}
	if n := count(body.Bytes()); n > values {
		return fmt.Errorf("read frame: %w: %d, at most %d", ErrTooMany, n, values)
	}
	d := json.NewDecoder(&body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read frame: more than one value in it")
	}
	return nil
}

// count says how many values a JSON text has at most: what stands behind commas and opening brackets that are not part of a string.
func count(text []byte) int {
	n, inside, escaped := 1, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inside:
			escaped, inside = c == '\\', c != '"'
		case c == '"':
			inside = true
		case c == ',', c == '[', c == '{':
			n++
		}
	}
	return n
}

// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

type value struct {
	Name   string         `json:"name"`
	Bytes  []byte         `json:"bytes,omitempty"`
	Number uint64         `json:"number,omitempty"`
	More   map[string]int `json:"more,omitempty"`
	Next   *value         `json:"next,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	sent := []value{
		{Name: "a", Number: 1<<64 - 1},
		{},
		{Name: "<&>\u2028\n", Bytes: []byte{0, 1, 255}, More: map[string]int{"x": 1}, Next: &value{Name: "b"}},
	}
	var stream bytes.Buffer
	for _, v := range sent {
		if err := Write(&stream, v); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range sent {
		var got value
		if err := Read(&stream, &got); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("frame %d = %+v; want %+v", i, got, want)
		}
	}
	if err := Read(&stream, new(value)); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the last frame: %v; want io.EOF", err)
	}
}

func TestRefused(t *testing.T) {
	raw := func(n uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, n), body...)
	}
	whole := func(body string) []byte { return raw(uint32(len(body)), body) }
	for _, c := range []struct {
		name   string
		stream []byte
		want   string
	}{
		{"header cut short", []byte{0, 0}, "unexpected EOF"},
		{"body cut short", raw(10, `{"na`), "4 of 10 bytes: unexpected EOF"},
		{"no body", raw(10, ""), "0 of 10 bytes: unexpected EOF"},
		{"longer than the most", raw(MaxBytes+1, "{}"), "too long"},
		{"empty", raw(0, ""), "EOF"},
		{"unknown field", whole(`{"name":"a","root":true}`), `unknown field "root"`},
		{"wrong type", whole(`{"name":7}`), "cannot unmarshal number"},
		{"two values", whole(`{}{}`), "more than one value"},
		{"rubbish behind the value", whole(`{}]`), "more than one value"},
	} {
		err := Read(bytes.NewReader(c.stream), new(value))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "read frame: ") {
			t.Errorf("%s: %v; want an error with %q", c.name, err, c.want)
		}
	}
}

// TestTooManyValues: a frame of few bytes and many values is refused before it becomes them; what stands in a text counts for nothing.
func TestTooManyValues(t *testing.T) {
	var many struct{ List []struct{ A, B, C, D string } }
	for _, c := range []struct {
		body string
		want error
	}{
		{`{"List":[{},{},{}]}`, nil},
		{`{"List":[` + strings.Repeat("{},", 100) + `{}]}`, ErrTooMany},
		{`{"List":[{"A":"` + strings.Repeat(`,[{\"`, 100) + `"}]}`, nil},
	} {
		frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(c.body))), c.body...)
		if err := ReadAtMost(bytes.NewReader(frame), &many, 50); !errors.Is(err, c.want) {
			t.Errorf("%.40s: %v; want %v", c.body, err, c.want)
		}
	}
}

func TestWriteRefusesWhatReadWould(t *testing.T) {
	var stream bytes.Buffer
	err := Write(&stream, value{Name: strings.Repeat("x", MaxBytes)})
	if !errors.Is(err, ErrTooLong) || stream.Len() != 0 {
		t.Errorf("error %v with %d bytes written; want ErrTooLong with none", err, stream.Len())
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []value{{Name: "a"}, {Number: 7, Bytes: []byte("b")}, {Next: &value{Next: &value{}}}} {
		b, err := Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			before := r.Len()
			var got value
			if err := Read(r, &got); err != nil {
				return
			}
			if used := before - r.Len(); used < headerBytes || used != headerBytes+int(binary.BigEndian.Uint32(stream[len(stream)-before:])) {
				t.Fatalf("a frame took %d bytes", used)
			}
			again, err := Marshal(got)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			var same value
			if err := Read(bytes.NewReader(again), &same); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
			if twice, err := Marshal(same); err != nil || !bytes.Equal(again, twice) {
				t.Fatalf("written %s, read and written again %s, %v", again, twice, err)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// deep are the values behind the only argument of hot_deep.
func deep() []target.Value {
	return []target.Value{
		hot.Scalar("o", target.KindPointer, 8, hot.Argument(0)),
		hot.Scalar("o.number", target.KindUint, 4, hot.Argument(0, 0)),
		hot.Scalar("o.inner.id", target.KindUint, 8, hot.Argument(0, 8, 0)),
		hot.String("o.inner.text", hot.Argument(0, 8, 8), hot.Argument(0, 8, 16)),
		hot.Scalar("o.inner.length", target.KindLength, 8, hot.Argument(0, 8, 16)),
	}
}

func text() []target.Value { return []target.Value{hot.CString("text", hot.Argument(0))} }

func TestValues(t *testing.T) {
	p := startHot(t)
	letters := func(n int) string {
		return strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1)[:n]
	}
	for _, c := range []struct {
		name, command string
		request       request
		want          []string // the text of each value of the only event, see show
	}{
		{"every width", "wide", request{function: "hot_wide", values: []target.Value{
			hot.Scalar("a", target.KindInt, 1, hot.Argument(0)),
			hot.Scalar("b", target.KindUint, 1, hot.Argument(1)),
			hot.Scalar("c", target.KindInt, 2, hot.Argument(2)),
			hot.Scalar("d", target.KindUint, 2, hot.Argument(3)),
			hot.Scalar("e", target.KindInt, 4, hot.Argument(4)),
			hot.Scalar("f", target.KindUint, 8, hot.Argument(5)),
			hot.Scalar("g", target.KindBool, 1, hot.Argument(1)),
		}}, []string{"-1", "200", "-300", "60000", "-70000", "9223372036854775808", "true"}},
		{"a string", "pair 1 -5 some text", request{function: "hot_pair", values: hot.Pair()}, []string{"-5", "some text"}},
		{"an empty string", "size 0", request{function: "hot_pair", values: hot.Pair()}, []string{"0", ""}},
		{"as long as is read", "size 64", request{function: "hot_pair", values: hot.Pair()}, []string{"64", letters(64)}},
		{"one longer", "size 65", request{function: "hot_pair", values: hot.Pair()}, []string{"65", letters(64) + "…"}},
		{"the longest", "size 5000", request{function: "hot_pair", values: hot.Pair(), limits: probe.Limits{ValueBytes: probe.MaxValueBytes}},
			[]string{"5000", letters(4096) + "…"}},
		{"no string has that length", "odd -1", request{function: "hot_pair", values: hot.Pair()}, []string{"0", "<bad length>"}},
		{"nor that", "odd 0x800000000000", request{function: "hot_pair", values: hot.Pair()}, []string{"0", "<bad length>"}},
		{"a length that leads out of the mapping", "odd 0x7fffffffffff", request{function: "hot_pair", values: hot.Pair()},
			[]string{"0", "short*…"}},

		{"a C string", "text 1 word", request{function: "hot_text", values: text()}, []string{"word"}},
		{"an empty C string", "size 0", request{function: "hot_text", values: text()}, []string{""}},
		{"a C string as long as is read", "size 64", request{function: "hot_text", values: text()}, []string{letters(64)}},
		{"a C string one longer", "size 65", request{function: "hot_text", values: text()}, []string{letters(64) + "…"}},
		{"a C string two longer", "size 66", request{function: "hot_text", values: text()}, []string{letters(64) + "…"}},
		{"the longest C string", "size 5000", request{function: "hot_text", values: text(), limits: probe.Limits{ValueBytes: probe.MaxValueBytes}},
			[]string{letters(4096) + "…"}},
		{"a C string at the end of memory", "edge 1 word", request{function: "hot_text", values: text()}, []string{"word"}},

		{"behind pointers", "deep word", request{function: "hot_deep", values: deep()}, []string{"0x*", "7", "77", "word", "4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := attach(t, p, c.request)
			p.Do(t, "%s", c.command)
			events := s.events(t)
			if len(events) != 1 {
				t.Fatalf("%d events", len(events))
			}
			requireValues(t, events[0], c.want)
			if e := events[0]; e.Process.PID != p.PID() || e.Process.TID != p.PID() || e.Process.Comm != "hot" || e.Function != c.request.function {
				t.Errorf("%+v in %s", e.Process, e.Function)
			}
		})
	}
}

// TestMissingValues shows why a value is missing, and that the others of the same event are not.
func TestMissingValues(t *testing.T) {
	p := startHot(t)
	values := deep()[1:]
	for _, c := range []struct {
		name, command string
		request       request
		want          [][]string
	}{
		{"nil string", "null", request{function: "hot_pair", values: hot.Pair()}, [][]string{{"0", "<nil pointer>"}}},
		{"nil C string", "null", request{function: "hot_text", values: text()}, [][]string{{"<nil pointer>"}}},
		{"nil struct, then one with a nil in it", "null", request{function: "hot_deep", values: values}, [][]string{
			{"<nil pointer>", "<nil pointer>", "<nil pointer>", "<nil pointer>"},
			{"7", "<nil pointer>", "<nil pointer>", "<nil pointer>"},
		}},
		{"string that is not there", "fault", request{function: "hot_pair", values: hot.Pair()}, [][]string{{"0", "<fault>"}}},
		{"C string that is not there", "fault", request{function: "hot_text", values: text()}, [][]string{{"<fault>"}}},
		{"struct that is not there", "fault", request{function: "hot_deep", values: values},
			[][]string{{"<fault>", "<fault>", "<fault>", "<fault>"}}},
	} {
		for _, action := range []string{"keep", "digest", "suffix:4", "prefix:4"} {
			t.Run(c.name+", "+action, func(t *testing.T) {
				r := c.request
				r.redact = action
				s := attach(t, p, r)
				p.Do(t, "%s", c.command)
				events := s.events(t)
				if len(events) != len(c.want) {
					t.Fatalf("%d events, want %d", len(events), len(c.want))
				}
				for i := range events {
					requireValues(t, events[i], c.want[i])
				}
				s.requireScratchZero(t)
			})
		}
	}
}

func TestActions(t *testing.T) {
	p := startHot(t)
	const value = "4242424242421881"
	for _, c := range []struct{ action, want, short, long string }{
		// of a string of 16 bytes, of 2, and of 65 where 64 are read
		{"keep", value, "ab", strings.Repeat("abcdefghijklmnopqrstuvwxyz", 3)[:64] + "…"},
		{"length", "16", "2", ""}, // for long strings see below
		{"prefix:3", "424", "", "abc…"},
		{"prefix:2", "42", "", "ab…"}, // as long as the short one: all of it would leave
		{"prefix:1", "4", "a", "a…"},
		{"suffix:4", "1881", "", "…"},
		{"suffix:2", "81", "", "…"},
		{"suffix:1", "1", "b", "…"},
		{"suffix:11", value[5:], "", "…"},
		{"suffix:16", "", "", "…"},
		{"drop", "<redacted>", "<redacted>", "<redacted>"},
	} {
		for _, function := range []string{"hot_pair", "hot_text"} {
			t.Run(c.action+" "+function, func(t *testing.T) {
				r := request{function: function, values: text(), redact: c.action}
				if function == "hot_pair" {
					r.values = hot.Pair()[1:]
				}
				s := attach(t, p, r)
				if function == "hot_pair" {
					p.Do(t, "pair 1 0 %s", value)
				} else {
					p.Do(t, "text 1 %s", value)
				}
				p.Do(t, "size 2")
				p.Do(t, "size 65")
				records := s.records(t)
				if len(records) != 3 {
					t.Fatalf("%d records", len(records))
				}
				long := c.long
				if c.action == "length" {
					// What a program says itself is exact; what the kernel has to count, it counts as far as it reads.
					long = map[string]string{"hot_pair": "65", "hot_text": "64…"}[function]
				}
				for i, want := range []string{c.want, c.short, long} {
					e, err := s.decoder.Decode(records[i])
					if err != nil {
						t.Fatal(err)
					}
					requireValues(t, e, []string{want})
				}
				s.requireScratchZero(t)
			})
		}
	}
}

// TestRecordsAreExact looks at the bytes themselves: a record is as long as what may leave, and what pads it is zero.
func TestRecordsAreExact(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), redact: "suffix:3"})
	p.Do(t, "pair 1 7 secret-secret-xyz")
	records := s.records(t)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	const header, value = 48, 8
	want := slices.Concat(
		[]byte{0, 0, 8, 0, 8, 0, 0, 0}, []byte{7, 0, 0, 0, 0, 0, 0, 0},
		[]byte{0, 0, 3, 0, 17, 0, 0, 0}, []byte("xyz\x00\x00\x00\x00\x00"),
	)
	if got := records[0]; len(got) != header+len(want) || !slices.Equal(got[header:], want) {
		t.Errorf("% x\nwant % x behind a header of %d bytes", got, want, header)
	}
}

// requireValues compares an event's values with texts as show writes them; "*" stands for anything.
func requireValues(t *testing.T, e event.Event, want []string) {
	t.Helper()
	if len(e.Arguments) != len(want) {
		t.Fatalf("%d values, want %d", len(e.Arguments), len(want))
	}
	for i, v := range e.Arguments {
		got := show(v)
		if got == want[i] {
			continue
		}
		before, after, anything := strings.Cut(want[i], "*")
		if !anything || !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
			t.Errorf("%s is %q, want %q", v.Name, got, want[i])
		}
	}
}

// show writes a value as its text, with "…" behind it if it was cut, or the reason why it is missing as "<reason>".
func show(v event.Value) string {
	switch {
	case v.Missing != "":
		return "<" + v.Missing + ">"
	case v.Truncated:
		return v.Value + "…"
	default:
		return v.Value
	}
}

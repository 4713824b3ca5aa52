// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func spec() *Spec {
	return &Spec{
		Target:    Selector{Kind: SelectPID, PID: 4711},
		Function:  "main.(*Cart).Checkout",
		Arguments: []string{"c.user.email", "qty"},
		Where:     "qty > 10",
		Redact:    []Redaction{{Path: "qty", Action: "digest"}},
		Reason:    "INC-4211 checkout 500s",
	}
}

func TestValidate(t *testing.T) {
	if err := spec().Validate(); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Spec)
		says   string // empty: valid
	}{
		"no target":              {func(s *Spec) { s.Target = Selector{} }, "TARGET"},
		"an unknown kind":        {func(s *Spec) { s.Target.Kind = "pod" }, "TARGET"},
		"process 0":              {func(s *Spec) { s.Target.PID = 0 }, "TARGET pid/0"},
		"a negative process":     {func(s *Spec) { s.Target.PID = -1 }, "TARGET pid/-1"},
		"an impossible process":  {func(s *Spec) { s.Target.PID = 1 << 23 }, "TARGET pid/"},
		"process and path":       {func(s *Spec) { s.Target.Path = "/bin/x" }, "one of them"},
		"a path":                 {func(s *Spec) { s.Target = Selector{Kind: SelectExe, Path: "/usr/bin/caddy"} }, ""},
		"a relative path":        {func(s *Spec) { s.Target = Selector{Kind: SelectExe, Path: "bin/caddy"} }, "absolute"},
		"a path that climbs":     {func(s *Spec) { s.Target = Selector{Kind: SelectExe, Path: "/usr/../caddy"} }, "absolute"},
		"no path":                {func(s *Spec) { s.Target = Selector{Kind: SelectExe} }, "absolute"},
		"path and process":       {func(s *Spec) { s.Target = Selector{Kind: SelectExe, Path: "/x", PID: 1} }, "one of them"},
		"a path of 1 MiB":        {func(s *Spec) { s.Target = Selector{Kind: SelectExe, Path: strings.Repeat("/x", 1<<19)} }, "at most 4096"},
		"a node":                 {func(s *Spec) { s.Target.Node = "ip-10-0-3-17.internal" }, ""},
		"a node that is a path":  {func(s *Spec) { s.Target.Node = "a/b" }, "--node"},
		"no function":            {func(s *Spec) { s.Function = "" }, "FUNCTION"},
		"a long function":        {func(s *Spec) { s.Function = strings.Repeat("x", MaxFunctionBytes+1) }, "FUNCTION"},
		"a function in colour":   {func(s *Spec) { s.Function = "\x1b[31mmain" }, "unprintable"},
		"a function not UTF-8":   {func(s *Spec) { s.Function = "main\xff" }, "UTF-8"},
		"no arguments":           {func(s *Spec) { s.Arguments = nil }, ""},
		"10,000 arguments":       {func(s *Spec) { s.Arguments = make([]string, 10_000) }, "--arg: 10000 paths; at most 32"},
		"an empty argument":      {func(s *Spec) { s.Arguments = []string{""} }, "--arg"},
		"an argument of 1 MiB":   {func(s *Spec) { s.Arguments = []string{strings.Repeat("a.", 1<<19)} }, "at most 256"},
		"an argument twice":      {func(s *Spec) { s.Arguments = []string{"a", "b", "a"} }, "--arg a: given twice"},
		"a wrong condition":      {func(s *Spec) { s.Where = "qty >" }, "--where"},
		"an unknown action":      {func(s *Spec) { s.Redact[0].Action = "hide" }, "--redact qty=hide"},
		"a wrong redacted path":  {func(s *Spec) { s.Redact[0].Path = "a..b" }, "--redact"},
		"many redactions":        {func(s *Spec) { s.Redact = make([]Redaction, 33) }, "--redact: 33"},
		"a TTL too long":         {func(s *Spec) { s.Limits.TTL = 2 * time.Hour }, "--for 2h0m0s: at most 1h0m0s"},
		"a TTL too short":        {func(s *Spec) { s.Limits.TTL = time.Millisecond }, "--for 1ms: at least 1s"},
		"a negative TTL":         {func(s *Spec) { s.Limits.TTL = -time.Second }, "--for"},
		"a rate too high":        {func(s *Spec) { s.Limits.Rate = MaxRate + 1 }, "--rate"},
		"too many bytes":         {func(s *Spec) { s.Limits.MaxBytes = MaxBytes + 1 }, "bytes"},
		"too many bytes a value": {func(s *Spec) { s.Limits.ValueBytes = MaxValueBytes + 1 }, "a value"},
		"no reason":              {func(s *Spec) { s.Reason = "  " }, "--reason: missing"},
		"200 letters":            {func(s *Spec) { s.Reason = strings.Repeat("ü", 200) }, ""},
		"201 letters":            {func(s *Spec) { s.Reason = strings.Repeat("ü", 201) }, "--reason: 201 characters"},
		"a reason of two lines":  {func(s *Spec) { s.Reason = "a\nb" }, "unprintable"},
	} {
		t.Run(what, func(t *testing.T) {
			s := spec()
			c.change(s)
			err := s.Validate()
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("error %v does not say %q", err, c.says)
			case err != nil && len(err.Error()) > 1000:
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestWithDefaults(t *testing.T) {
	s := spec()
	got := s.WithDefaults().Limits
	want := Limits{TTL: 5 * time.Minute, Rate: 50, MaxBytes: 8 << 20, ValueBytes: 256, Budget: 20}
	if got != want || s.Limits != (Limits{}) {
		t.Errorf("defaults are %+v; want %+v; the original became %+v", got, want, s.Limits)
	}
	full := Limits{TTL: time.Second, MaxHits: 1, Rate: 2, Sample: 3, MaxBytes: 4, ValueBytes: 5, Budget: 6}
	s.Limits = full
	if got := s.WithDefaults().Limits; got != full {
		t.Errorf("limits that were given became %+v", got)
	}
}

func TestDigest(t *testing.T) {
	s := spec()
	first := s.Digest()
	if s.WithDefaults().Digest() != first {
		t.Error("the defaults, spelled out, are another request")
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var read Spec
	if err := json.Unmarshal(data, &read); err != nil || !reflect.DeepEqual(&read, s) || read.Digest() != first {
		t.Errorf("%s was read as %+v: %v", data, read, err)
	}
	s.Arguments[0] = "c.user.name"
	if s.Digest() == first {
		t.Error("another request has the same digest")
	}
}

func TestParsePath(t *testing.T) {
	for path, want := range map[string][]string{
		"qty": {"qty"}, "c.user.email": {"c", "user", "email"}, "items.0.sku": {"items", "0", "sku"}, "_x9.Größe": {"_x9", "Größe"},
		"len(c.items)": {"c", "items", "len"}, "c.items.len": {"c", "items", "len"},
	} {
		if got, err := ParsePath(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParsePath(%q) = %q, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", ".", "a.", ".a", "a..b", "a b", "a-b", "0", "9x", "items.0-3.sku", "a.*", "a[0]", "a.\xff", "a.0x1", "a." + strings.Repeat("9", 10),
		strings.Repeat("x", MaxPathBytes+1), "a\x00b", "\x1b[31m", "len()", "len(a", "len(len(a))", "len(a).b",
	} {
		if got, err := ParsePath(path); err == nil {
			t.Errorf("ParsePath(%q) = %q", path, got)
		}
	}
}

func TestParseWhere(t *testing.T) {
	number := func(n uint64) Literal { return Literal{Kind: Integer, Magnitude: n} }
	for text, want := range map[string][]Condition{
		"":                          nil,
		"qty > 10":                  {{"qty", Greater, number(10)}},
		"qty>=0x10":                 {{"qty", GreaterOrEqual, number(16)}},
		" a.b<0b11 &&\tc<=0o17 ":    {{"a.b", Less, number(3)}, {"c", LessOrEqual, number(15)}},
		"n == -5":                   {{"n", Equal, Literal{Kind: Integer, Negative: true, Magnitude: 5}}},
		"len(c.items) > 1":          {{"c.items.len", Greater, number(1)}},
		"n != -0":                   {{"n", NotEqual, number(0)}},
		"n == 18446744073709551615": {{"n", Equal, number(math.MaxUint64)}},
		"n == -9223372036854775808": {{"n", Equal, Literal{Kind: Integer, Negative: true, Magnitude: 1 << 63}}},
		`s == "a && b"&&ok!=true`:   {{"s", Equal, Literal{Kind: Text, Text: "a && b"}}, {"ok", NotEqual, Literal{Kind: Boolean, True: true}}},
		`s != "\"\u00fc\x41"`:       {{"s", NotEqual, Literal{Kind: Text, Text: `"üA`}}},
		`s == ""`:                   {{"s", Equal, Literal{Kind: Text}}},
	} {
		got, err := ParseWhere(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseWhere(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"qty":                        "column 4: want a comparison",
		"qty >":                      "column 6: want a literal",
		"> 10":                       "column 1: want a path",
		"qty = 10":                   "want a comparison",
		"qty === 10":                 "column 7",
		"qty > 10 &&":                "column 12: want a path",
		"qty > 10 || a > 1":          "column 10: want && or the end",
		"qty > 10 a":                 "column 10: want && or the end",
		"qty > ten":                  `"ten"`,
		"qty > 1.5":                  "want an integer",
		"qty > 18446744073709551616": "64 bits",
		"qty > -9223372036854775809": "64 bits",
		`s < "a"`:                    "integers only",
		"ok > true":                  "integers only",
		`s == "a`:                    "does not end",
		"s == 'a'":                   "double quotes",
		"s == `a`":                   "double quotes",
		"a..b > 1":                   "empty name",
		"a\xff > 1":                  "UTF-8",
		strings.Repeat("x", 2000):    "2000 bytes",
		`s == "` + strings.Repeat("x", MaxLiteralBytes+1) + `"`: "at most 128",
		strings.Repeat("a>1&&", 8) + "a>1":                      "more than 8",
	} {
		got, err := ParseWhere(text)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), "--where: ") {
			t.Errorf("ParseWhere(%.40q) = %v, %v; want an error that says %q", text, got, err, says)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Selector{
		"pid/4711":            {Kind: SelectPID, PID: 4711},
		"exe/usr/bin/caddy":   {Kind: SelectExe, Path: "/usr/bin/caddy"},
		"exe//usr/bin/caddy":  {Kind: SelectExe, Path: "/usr/bin/caddy"},
		"exe//usr/../bin/cat": {Kind: SelectExe, Path: "/bin/cat"},
	} {
		got, err := ParseTarget(text)
		if err != nil || got != want {
			t.Errorf("ParseTarget(%q) = %+v, %v", text, got, err)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != want {
			t.Errorf("%q, printed and read, is %+v, %v", got, again, err)
		}
	}
	for _, text := range []string{"", "4711", "pid/", "pid/0", "pid/-1", "pid/+1", "pid/1x", "pid/99999999999", "exe/", "exe", "exe//", "pod/x", "PID/1", "exe/a\nb"} {
		if got, err := ParseTarget(text); err == nil || !strings.Contains(err.Error(), "TARGET") {
			t.Errorf("ParseTarget(%q) = %+v, %v", text, got, err)
		}
	}
}

func TestParseRateAndSample(t *testing.T) {
	for text, want := range map[string]uint32{"50/s": 50, "1": 1, "1000000/s": MaxRate, "0/s": 0, "1000001/s": 0, "": 0, "-1": 0, "50/m": 0, "5.5/s": 0, "/s": 0} {
		if got, err := ParseRate(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseRate(%q) = %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]uint32{"1/10": 10, "1/1": 1, "1/0": 0, "2/10": 0, "10": 0, "1/": 0, "1/-3": 0, "1/4294967296": 0, "": 0} {
		if got, err := ParseSample(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseSample(%q) = %d, %v", text, got, err)
		}
	}
}

// FuzzParsePath: a path that is accepted is put together again from its names.
func FuzzParsePath(f *testing.F) {
	f.Add("c.user.email")
	f.Add("items.0-3.sku")
	f.Fuzz(func(t *testing.T, path string) {
		names, err := ParsePath(path)
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 2000 {
				t.Errorf("error %q", err)
			}
			return
		}
		again := strings.Join(names, ".")
		if last := len(names) - 1; strings.HasPrefix(path, "len(") {
			again = "len(" + strings.Join(names[:last], ".") + ")"
		}
		if again != path || len(path) > MaxPathBytes || strings.ContainsAny(path, " \t\n\x1b\"&=<>!") {
			t.Errorf("%q is a path of %q", path, names)
		}
	})
}

// FuzzParseWhere: conditions that are accepted mean the same when printed and read again.
func FuzzParseWhere(f *testing.F) {
	f.Add(`qty > 10 && sku == "A"`)
	f.Add(`a.b != -1 && ok == true`)
	f.Add(`a=="\xff"`)
	f.Fuzz(func(t *testing.T, text string) {
		conditions, err := ParseWhere(text)
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 2000 {
				t.Errorf("error %q", err)
			}
			return
		}
		var parts []string
		for _, c := range conditions {
			parts = append(parts, c.String())
		}
		printed := strings.Join(parts, " && ")
		if len(printed) > MaxWhereBytes {
			return // escapes made it longer
		}
		again, err := ParseWhere(printed)
		if err != nil || !reflect.DeepEqual(again, conditions) {
			t.Errorf("%q is %+v; printed as %q it is %+v, %v", text, conditions, printed, again, err)
		}
	})
}

// FuzzSpec: a request that anybody wrote is refused with a short sentence, or stays within all bounds.
func FuzzSpec(f *testing.F) {
	data, err := json.Marshal(spec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Spec
		if json.Unmarshal(data, &s) != nil {
			return
		}
		if err := s.Validate(); err != nil {
			if len(err.Error()) > 4000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		l := s.WithDefaults().Limits
		if l.TTL <= 0 || l.TTL > MaxTTL || l.Rate == 0 || l.MaxBytes == 0 || l.MaxBytes > MaxBytes || l.ValueBytes == 0 || l.ValueBytes > MaxValueBytes {
			t.Errorf("limits %+v", l)
		}
		if !strings.HasPrefix(s.Digest(), "sha256:") {
			t.Error("no digest")
		}
	})
}

func TestBudget(t *testing.T) {
	for text, want := range map[string]Budget{"2%": 20, "0.1%": 1, "0.15%": 2, " 100 % ": 1000, "10000%": MaxBudget} {
		if got, err := ParseBudget(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "%", "0%", "0.09%", "-1%", "10001%", "NaN%", "Inf%", "two%", "1e9%"} {
		if got, err := ParseBudget(text); err == nil || !strings.Contains(err.Error(), "--budget") {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	if got := []string{Budget(20).String(), Budget(5).String(), Budget(1234).String()}; !slices.Equal(got, []string{"2%", "0.5%", "123.4%"}) {
		t.Errorf("written as %q", got)
	}
	for _, c := range []struct {
		cost, within time.Duration
		over         bool
	}{{20, 1000, false}, {21, 1000, true}, {0, 0, false}, {1, 0, true}, {time.Hour, 50 * time.Hour, false}} {
		if Budget(20).Over(c.cost, c.within) != c.over {
			t.Errorf("%v within %v is over 2%%: %v", c.cost, c.within, !c.over)
		}
	}
}

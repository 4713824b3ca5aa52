// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/keyhole-dev/keyhole/internal/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestSituations drives a machine through each file of testdata: its comment says what the situation is, `events` is
// the input, `want` what the machine did after each event and what the sessions were then.
func TestSituations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("testdata holds no situations")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 0 || archive.Files[0].Name != "events" {
				t.Fatal("the first section is not `events`")
			}
			got := []byte(play(t, 2, string(archive.Files[0].Data)))
			if *update {
				archive.Files = []txtar.File{archive.Files[0], {Name: "want", Data: got}}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 || !bytes.Equal(archive.Files[1].Data, got) {
				t.Errorf("the machine now does (go test -update rewrites it):\n%s", got)
			}
		})
	}
}

func play(t *testing.T, limit int, events string) string {
	t.Helper()
	m, h := New(limit), newHistory()
	var out strings.Builder
	before := map[string]string{}
	for line := range strings.Lines(events) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		e, err := parseEvent(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		effects := m.Handle(e)
		if err := h.check(m, e, effects); err != nil {
			t.Fatalf("after %s: %v", line, err)
		}
		fmt.Fprintf(&out, "%s\n", line)
		for _, f := range effects {
			fmt.Fprintf(&out, "    -> %s\n", describe(f))
		}
		after := states(m)
		for _, id := range slices.Sorted(maps.Keys(after)) {
			if after[id] != before[id] {
				fmt.Fprintf(&out, "    %s: %s\n", id, after[id])
			}
		}
		before = after
	}
	return out.String()
}

// states describes every session that the machine knows.
func states(m *Machine) map[string]string {
	all := make(map[string]string)
	for id, by := range m.finished {
		all[id] = "finished " + by
	}
	for id, s := range m.sessions {
		d := s.State.String()
		for _, f := range []struct {
			name, text string
		}{
			{"cause", s.Cause}, {"endedBy", s.EndedBy}, {"problem", problemText(s.Problem)},
		} {
			if f.text != "" {
				d += " " + f.name + "=" + strconv.Quote(f.text)
			}
		}
		if s.Revision > 1 {
			d += fmt.Sprintf(" revision=%d", s.Revision)
		}
		if s.Watched {
			d += " watched"
		}
		if s.Counts.Hits > 0 {
			d += fmt.Sprintf(" hits=%d", s.Counts.Hits)
		}
		all[id] = d
	}
	return all
}

func problemText(p *problem.Error) string {
	if p == nil {
		return ""
	}
	return p.Code + ": " + p.Message
}

// describe writes an event or an effect as its type's name and its fields that are not zero.
func describe(v any) string {
	value := reflect.ValueOf(v)
	text := value.Type().Name()
	for i := range value.NumField() {
		f, name := value.Field(i), value.Type().Field(i).Name
		switch {
		case f.IsZero():
		case name == "SessionID":
			text += " " + f.String()
		case f.Kind() == reflect.Bool:
			text += " " + name
		case f.Kind() == reflect.Pointer:
			text += fmt.Sprintf(" %s=%q", name, problemText(f.Interface().(*problem.Error)))
		default:
			text += fmt.Sprintf(" %s=%v", name, f.Interface())
		}
	}
	return text
}

var eventTypes = []reflect.Type{
	reflect.TypeFor[Connected](), reflect.TypeFor[Orphaned](), reflect.TypeFor[Finished](), reflect.TypeFor[Prepared](),
	reflect.TypeFor[PrepareFailed](), reflect.TypeFor[Recorded](), reflect.TypeFor[RecordFailed](), reflect.TypeFor[HolderAttached](),
	reflect.TypeFor[AttachFailed](), reflect.TypeFor[HolderAdmitted](), reflect.TypeFor[Counted](), reflect.TypeFor[StopRequested](), reflect.TypeFor[DeadlineReached](),
	reflect.TypeFor[HolderEnded](), reflect.TypeFor[Draining](),
}

// parseEvent reads "HolderEnded s1 EndedBy=stopped Hits=7" and "Desired 3 s1@1 s2@1,stop=revoked s3@0,refused".
func parseEvent(line string) (Event, error) {
	words := strings.Fields(line)
	if words[0] == "Desired" {
		return parseDesired(words[1:])
	}
	i := slices.IndexFunc(eventTypes, func(t reflect.Type) bool { return t.Name() == words[0] })
	if i < 0 {
		return nil, fmt.Errorf("no event is called %q", words[0])
	}
	v := reflect.New(eventTypes[i]).Elem()
	for _, w := range words[1:] {
		name, text, ok := strings.Cut(w, "=")
		if !ok {
			name, text = "SessionID", w
		}
		f := v.FieldByName(name)
		if name == "Hits" {
			f = v.FieldByName("Counts").FieldByName(name)
		}
		if !f.IsValid() {
			return nil, fmt.Errorf("%s has no field %s", words[0], name)
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(text)
		case reflect.Pointer:
			f.Set(reflect.ValueOf(problem.New(text, "as the test says")))
		default:
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return nil, err
			}
			if f.CanInt() {
				f.SetInt(int64(n))
			} else {
				f.SetUint(n)
			}
		}
	}
	return v.Interface().(Event), nil
}

func parseDesired(words []string) (Event, error) {
	var e Desired
	for i, w := range words {
		if i == 0 {
			n, err := strconv.ParseInt(w, 10, 64)
			if err != nil {
				return nil, err
			}
			e.Revision = n
			continue
		}
		grant, flags, _ := strings.Cut(w, ",")
		id, revision, _ := strings.Cut(grant, "@")
		n, err := strconv.ParseInt(revision, 10, 64)
		if err != nil {
			return nil, err
		}
		d := Desire{SessionID: id, Revision: n}
		for f := range strings.SplitSeq(flags, ",") {
			switch name, text, _ := strings.Cut(f, "="); name {
			case "":
			case "stop":
				d.Stop, d.StoppedBy = true, text
			case "watched":
				d.Watched = true
			case "refused":
				d.Refused = problem.New(problem.PermissionDenied, "no proof")
			default:
				return nil, fmt.Errorf("a desire has no flag %q", name)
			}
		}
		e.Sessions = append(e.Sessions, d)
	}
	return e, nil
}

// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// How many texts of either sort there are.
const texts = 1_000

// places are what secrets stand in: %s is one, %[2]s another one.
var places = []struct{ kind, text string }{
	{"JSON", `{"id":42,"note":"%s","tags":["a","b"],"ok":true}`},
	{"JSON", `{"user":{"name":"Ann","contact":"%s"},"items":[{"sku":"A-1","qty":2}],"other":"%s"}`},
	{"JSON", `["%s","%s"]`},
	{"JSON in JSON", `{"payload":"{\"value\":\"%s\"}"}`},
	{"header", "X-Custom: %s\r\nAccept: */*\r\n"},
	{"header", "GET /v1/orders HTTP/1.1\r\nHost: shop.example\r\nX-Value: %s\r\nContent-Length: 0\r\n\r\n"},
	{"log line", "2026-11-23T20:13:00.123Z INFO checkout: value %s rejected after 3 tries"},
	{"log line", `level=warn msg="rejected" value="%s" attempt=3 elapsed=12.5ms`},
	{"log line", "Nov 23 20:13:00 node-1 app[1234]: got (%s), want [%s]"},
	{"log line", "E1123 20:13:00.000000    1234 main.go:56] value=%s"},
	{"SQL", "SELECT * FROM t WHERE value = '%s' AND id = 7"},
	{"SQL", "INSERT INTO t (a, b, c) VALUES (1, '%s', '%s');"},
	{"SQL", `UPDATE t SET v=E'%s' WHERE id=$1`},
	{"YAML", "value: %s\nother: 1\n"},
	{"YAML", "- name: a\n  value: '%s'\n"},
	{"XML", "<order id=\"1\"><value>%s</value></order>"},
	{"CSV", "1,Ann,%s,2026-11-23\n2,Bob,%s,2026-11-24\n"},
	{"Go", "{ID:42 Value:%s Tags:[a b]}"},
	{"Go", "map[id:42 value:%s]"},
	{"Go", `main.T{ID:42, Value:"%s"}`},
	{"Go", "&{%s 42 <nil>}"},
	{"text", "%s"},
	{"text", "%s is what was given"},
	{"text", "what was given is %s"},
	{"text", "given: %s, and %s."},
	{"text", "zażółć gęślą %s 漢字 %s"},
	{"text", "\xff\xfe%s\xff"},
	{"text", "\x00\x01%s\x00"},
	{"text", "<%s>"},
	{"text", "/%s/"},
	{"text", "|%s|%s|"},
	{"text", "\t%s\n%s\n"},
	{"text", "_%s"},
}

// glued are places where letters and underscores touch a secret, for the sets that find them there.
var glued = map[string][]string{
	"card": {"id_%s_x", "n%sx", "%s_%s", "a%sb%sc", "x%s"}, "ipv4": {"ip_%s_x", "ip%sx", "%s_%s", "a%sb%sc"},
	"iban": {"id_%s_x", "%s_%s"}, "nationalid": {"id_%s_x", "%s_%s"}, "jwt": {"x%s", "token_%s"}, "cloudkey": {"x%s", "key_%s"}, "phone": {"%s_x"},
}

type secret struct{ set, text string }

// secrets are the true examples of every set.
func secrets(t testing.TB) []secret {
	var all []secret
	for _, s := range Sets() {
		is, _ := examples(t, s.Name)
		for _, text := range is {
			all = append(all, secret{s.Name, text})
		}
	}
	return all
}

// left says whether there is something of a secret in what was overwritten: any of its bytes at its place, but the name of one behind a name.
func left(s secret, place []byte) bool {
	text := s.text
	if s.set == "dsn" || s.set == "session" {
		i := strings.IndexAny(text, "=:")
		text, place = text[i:], place[i:]
	}
	for i := range text {
		if place[i] != dfa.Overwritten && text[i] != dfa.Overwritten {
			return true
		}
	}
	return false
}

// quoted is text as it stands in a JSON string.
func quoted(t *testing.T, text string) string {
	t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[1 : len(b)-1])
}

// TestSecretTexts puts every secret into texts of every kind, and wants each byte of it overwritten.
func TestSecretTexts(t *testing.T) {
	machines, err := new(Library).Machines(All)
	if err != nil {
		t.Fatal(err)
	}
	all := secrets(t)
	r := rand.New(rand.NewPCG(1, 2))
	count, bytes, failed := 0, 0, 0
	kinds := make(map[string]int)
	try := func(kind, place string, in ...secret) {
		var text []byte
		var at []int
		for i, part := range strings.Split(place, "%s") {
			if i > 0 {
				at = append(at, len(text))
				if strings.HasPrefix(kind, "JSON") {
					in[i-1].text = quoted(t, in[i-1].text)
				}
				if kind == "JSON in JSON" {
					in[i-1].text = quoted(t, in[i-1].text)
				}
				text = append(text, in[i-1].text...)
			}
			text = append(text, part...)
		}
		count++
		kinds[kind]++
		out := dfa.Overwrite(text, false, machines...)
		for i, begin := range at {
			bytes += len(in[i].text)
			if !left(in[i], text[begin:begin+len(in[i].text)]) {
				t.Fatalf("nothing is seen of %q in %q", in[i].text, text)
			}
			if left(in[i], out[begin:begin+len(in[i].text)]) {
				failed++
				t.Errorf("%s: %s %q in %q: %q is left", kind, in[i].set, in[i].text, text, out)
			}
		}
	}
	// Every secret in several places, every place with many secrets.
	for i, s := range all {
		for k := range 5 {
			p := places[(i*5+k)%len(places)]
			try(p.kind, p.text, s, all[r.IntN(len(all))])
		}
		for _, p := range glued[s.set] {
			other := s
			for other.text == s.text || other.set != s.set {
				other = all[r.IntN(len(all))]
			}
			try("glued", p, s, other)
		}
	}
	if count < texts {
		t.Errorf("%d texts; want %d", count, texts)
	}
	t.Logf("%d secrets, %d bytes of them in %d texts (%v); %d were not overwritten", len(all), bytes, count, kinds, failed)
}

type harmlessText struct{ kind, text string }

// harmlessTexts are texts without a secret.
func harmlessTexts(t testing.TB) []harmlessText {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var all []harmlessText
	add := func(kind string, n int, text func(i int) string) {
		for i := range n {
			all = append(all, harmlessText{kind, text(i)})
		}
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.UintN(256))
		}
		return b
	}
	uuid := func() string {
		b := random(16)
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	when := func() time.Time { return time.Unix(1_600_000_000+r.Int64N(200_000_000), r.Int64N(1e9)).UTC() }
	layouts := []string{time.RFC3339, time.RFC3339Nano, time.RFC1123, time.ANSIC, time.Kitchen, time.DateTime, "02.01.2006", "01/02/2006 15:04", "20060102T150405Z", "20060102-150405", "2006-01-02 15:04:05.000 -0700 MST"}

	add("source code", 300, source(t, filepath.Join(goRoot(t), "src"), ".go", r))
	add("source code, ours", 100, source(t, filepath.Join("..", ".."), ".go", r))
	add("C, ours", 30, source(t, filepath.Join("..", "..", "bpf"), ".h", r))
	add("documents, ours", 40, source(t, filepath.Join("..", ".."), ".md", r))
	add("UUIDs", 90, func(int) string {
		return strings.Join([]string{uuid(), strings.ToUpper(uuid()), uuid()}, []string{" ", ",", "\n"}[r.IntN(3)])
	})
	add("hashes", 90, func(i int) string {
		h := sha256.Sum256(random(8))
		return hex.EncodeToString(h[:[]int{4, 16, 20, 32}[i%4]]) + []string{"", "  internal/detect/detect.go", " sha256:" + hex.EncodeToString(random(32))}[i%3]
	})
	add("prices", 80, func(i int) string {
		cents := r.IntN(10_000_000)
		return fmt.Sprintf([]string{"EUR %d.%02d", "$%d.%02d", "%d,%02d €", `{"price":%d.%02d,"currency":"USD"}`, "total: %d.%02d USD"}[i%5], cents/100, cents%100)
	})
	add("dates and times", 80, func(i int) string { return when().Format(layouts[i%len(layouts)]) })
	add("numbers", 60, func(i int) string {
		switch i % 5 {
		case 0:
			return fmt.Sprint(when().UnixNano())
		case 1:
			return fmt.Sprint(when().UnixMilli(), " ", r.IntN(1000))
		case 2:
			return fmt.Sprint(r.Float64() * 1e6)
		case 3:
			return fmt.Sprint(r.IntN(1_000_000_000))
		}
		return fmt.Sprintf("%#x %d %08b", r.Uint32(), r.Int32(), r.UintN(256))
	})
	add("versions", 30, func(i int) string {
		return fmt.Sprintf([]string{"v%d.%d.%d", "go%d.%d.%d", "linux-%d.%d.0-%d-cloud-amd64", "example.com/mod/v%d v%d.%d.0"}[i%4], r.IntN(30), r.IntN(30), r.IntN(300))
	})
	add("log lines", 50, func(i int) string {
		return fmt.Sprintf(`%s INFO http: method=%s path=/v1/orders/%d/items?page=%d status=%d bytes=%d elapsed=%.3fms id=%s`, when().Format(time.RFC3339Nano), []string{"GET", "POST"}[i%2], r.IntN(100_000), r.IntN(9), 200+r.IntN(300), r.IntN(1_000_000), r.Float64()*100, uuid())
	})
	add("JSON", 50, func(int) string {
		b, err := json.Marshal(map[string]any{"id": uuid(), "qty": r.IntN(9), "at": when(), "sku": fmt.Sprintf("AB-%05d", r.IntN(100_000)), "ratio": r.Float64(), "title": "Blue chair, 4 legs", "parent": nil})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	})
	return all
}

// source cuts pieces of up to 2,000 bytes out of files.
func source(t testing.TB, dir, ext string, r *rand.Rand) func(int) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && path != dir && d.Name() != ".."):
			return filepath.SkipDir
		case filepath.Ext(path) == ext:
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return func(int) string {
		data, err := os.ReadFile(files[r.IntN(len(files))])
		if err != nil {
			t.Fatal(err)
		}
		from := 0
		if len(data) > 2_000 {
			from = r.IntN(len(data) - 2_000)
		}
		return string(data[from:min(from+2_000, len(data))])
	}
}

// TestHarmlessTexts wants few bytes of texts without secrets overwritten, and prints how many are.
func TestHarmlessTexts(t *testing.T) {
	machines, err := new(Library).Machines(All)
	if err != nil {
		t.Fatal(err)
	}
	type share struct{ texts, bytes, overwritten int }
	var total share
	byKind := make(map[string]*share)
	var kinds []string
	bySet := make([]int, len(sets))
	for _, h := range harmlessTexts(t) {
		text := []byte(h.text)
		k := byKind[h.kind]
		if k == nil {
			k = new(share)
			byKind[h.kind], kinds = k, append(kinds, h.kind)
		}
		n := 0
		out := dfa.Overwrite(text, false, machines...)
		for i := range out {
			if out[i] != text[i] {
				n++
			}
		}
		for i, m := range machines {
			for _, found := range m.Matches(text, false) {
				bySet[i] += found[1] - found[0]
				if os.Getenv("KEYHOLE_SHOW_MATCHES") != "" {
					t.Logf("%s in %s: %q", sets[i].Name, h.kind, text[found[0]:found[1]])
				}
			}
		}
		for _, s := range []*share{&total, k} {
			s.texts, s.bytes, s.overwritten = s.texts+1, s.bytes+len(text), s.overwritten+n
		}
	}
	percent := func(s *share) float64 { return 100 * float64(s.overwritten) / float64(s.bytes) }
	for _, kind := range kinds {
		s := byKind[kind]
		t.Logf("%-18s %4d texts %7d bytes %6.3f %% overwritten", kind, s.texts, s.bytes, percent(s))
	}
	for i, n := range bySet {
		t.Logf("%-18s %6.3f %% of all", sets[i].Name, 100*float64(n)/float64(total.bytes))
	}
	t.Logf("of %d harmless texts with %d bytes %.3f %% are overwritten", total.texts, total.bytes, percent(&total))
	if total.texts < texts {
		t.Errorf("%d texts; want %d", total.texts, texts)
	}
	if percent(&total) > 2 {
		t.Error("want at most 2 %")
	}
}

func goRoot(t testing.TB) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(root))
}

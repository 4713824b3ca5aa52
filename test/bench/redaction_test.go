// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/test/bench/scan"
)

// lines are what values are made of: a log's, without anything to find and with something in each.
const (
	harmless = "level=info msg=\"order accepted\" items=3 shop=berlin took=12ms retries=0 queue=default; "
	secretly = "user ana@example.org paid with 4111 1111 1111 1111 from 192.0.2.17 (Bearer abcdef0123456789); "
)

// redaction measures what the program does with a value once it is read, without a probe around it, beside Go's regexp with the same sets.
func redaction(t *testing.T, n size) []row {
	t.Helper()
	machines, err := new(detect.Library).Machines(detect.All)
	if err != nil {
		t.Fatal(err)
	}
	k, err := scan.Load(machines...)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var patterns []*regexp.Regexp
	for _, s := range detect.Sets() {
		re := regexp.MustCompile(s.Pattern())
		re.Longest()
		patterns = append(patterns, re)
	}
	var rows []row
	for _, length := range []int{16, 64, 256, 1024, 4096} {
		times := max(n.hits/length, 20)
		plain := []byte(strings.Repeat(harmless, length/len(harmless)+1)[:length])
		with := []byte(strings.Repeat(secretly, length/len(secretly)+2)[5:][:length])
		run := func(what string, do scan.ScanKhScanWhat, value []byte) time.Duration {
			r, err := k.Run(do, value, ^uint32(0), false, times)
			if err != nil {
				t.Fatal(err)
			}
			if do == scan.Detect && bytes.Equal(value, with) == bytes.Equal(r.Value, value) {
				t.Errorf("%s of %d bytes: %q is left", what, length, r.Value)
			}
			rows = append(rows, row{fmt.Sprintf("%4d bytes: %s", length, what), ns(r.Each), "", fmt.Sprintf("%.1f ns a byte", float64(r.Each.Nanoseconds())/float64(length))})
			return r.Each
		}
		run("no redaction, a copy", scan.Copy, plain)
		run("digest", scan.Digest, plain)
		run("detect:all, nothing there", scan.Detect, plain)
		run("detect:all, matches", scan.Detect, with)
		for _, c := range []struct {
			what  string
			value []byte
		}{{"Go's regexp, nothing there", plain}, {"Go's regexp, matches", with}} {
			start := time.Now()
			for range times {
				for _, re := range patterns {
					re.FindAllIndex(c.value, -1)
				}
			}
			each := time.Since(start) / time.Duration(times)
			rows = append(rows, row{fmt.Sprintf("%4d bytes: %s", length, c.what), ns(each), "", fmt.Sprintf("%.1f ns a byte", float64(each.Nanoseconds())/float64(length))})
		}
	}
	return rows
}

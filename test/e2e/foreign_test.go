// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestCaddy traces the Caddy web server, as its project publishes it, while it answers requests.
func TestCaddy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "caddy")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join(testkit.Root(t), "test/foreign/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build Caddy: %v\n%s", err, out)
	}
	d := devtest.Start(t, nil, rules(t, "id: test/method, name: Method, action: keep", "id: test/path, name: Path, action: keep")...)

	address := freeAddress(t)
	serve := exec.Command(path, "respond", "--listen", address, "--body", "hello")
	serve.Env = append(serve.Environ(), "HOME="+t.TempDir())
	caddy := testkit.StartCommand(t, serve)
	get(t, "http://"+address+"/started", 20*time.Second)
	text := testkit.ReadText(t, caddy.PID())

	tr := d.Trace(fmt.Sprintf("pid/%d", caddy.PID()), "caddyhttp.(*Server).ServeHTTP",
		"--arg", "r.Method", "--arg", "r.URL.Path", "--arg", "r.Host", "--arg", "r.ContentLength", "--for", "1m")
	for i := range 20 {
		if got := get(t, fmt.Sprintf("http://%s/page/%d", address, i), time.Second); got != "hello" {
			t.Errorf("Caddy answered %q while it was traced", got)
		}
	}
	d.MustRun("stop", "--all")
	events, sum := tr.Finish(30 * time.Second)
	sum.RequireSum(t)
	if sum.Hits != 20 || len(events) != 20 {
		t.Fatalf("20 requests were %d hits and %d events: %+v", sum.Hits, len(events), sum)
	}
	for i, e := range events {
		if method, url := e.Argument(t, "r.Method"), e.Argument(t, "r.URL.Path"); method.Value != "GET" || url.Value != fmt.Sprintf("/page/%d", i) {
			t.Errorf("event %d says %q %q", i, method.Value, url.Value)
		}
		if host := e.Argument(t, "r.Host"); host.Redaction == nil || host.Redaction.Action != "detect:all" || strings.Contains(host.Value, "127") || !strings.HasPrefix(host.Value, "*********:") {
			t.Errorf("an address in r.Host, of which no rule speaks, came as %+v", host)
		}
		if length := e.Argument(t, "r.ContentLength"); length.Kind != "int" || length.Value != "0" {
			t.Errorf("r.ContentLength came as %+v", length)
		}
		if e.GoroutineID == "" || e.GoroutineID == "0" {
			t.Errorf("event %d has no goroutine", i)
		}
	}
	if d := text.Differences(testkit.ReadText(t, caddy.PID())); len(d) > 0 {
		t.Errorf("Caddy's text is not what it was: %v", d)
	}
}

// TestCProgram traces a C program that was built with gcc -O2 -g.
func TestCProgram(t *testing.T) {
	d := devtest.Start(t, nil, rules(t, "id: test/sku, name: sku, action: keep")...)
	inventory := testkit.Start(t, testkit.BuildC(t, "inventory", []string{"test/foreign/inventory.c"}))
	inventory.Expect("ready", 10*time.Second)
	text := testkit.ReadText(t, inventory.PID())

	tr := d.Trace(fmt.Sprintf("pid/%d", inventory.PID()), "take",
		"--arg", "sku", "--arg", "quantity", "--arg", "partial", "--arg", "article.stock", "--arg", "article.sku", "--for", "1m")
	for _, order := range []string{"tea-green 3", "pot-steel 9", "nothing 1"} {
		inventory.Send(order)
		inventory.Line(5 * time.Second)
	}
	d.MustRun("stop", "--all")
	events, sum := tr.Finish(30 * time.Second)
	sum.RequireSum(t)
	if sum.Hits != 3 || len(events) != 3 {
		t.Fatalf("3 calls were %d hits and %d events: %+v", sum.Hits, len(events), sum)
	}
	want := []map[string]string{
		{"sku": "tea-green", "quantity": "3", "partial": "false", "article.stock": "1000000", "article.sku": "tea-green"},
		{"sku": "pot-steel", "quantity": "9", "partial": "true", "article.stock": "3", "article.sku": "pot-steel"},
		{"sku": "nothing", "quantity": "1", "partial": "false"},
	}
	for i, e := range events {
		for name, text := range want[i] {
			if got := e.Argument(t, name); got.Value != text || got.Missing != "" {
				t.Errorf("call %d: %s is %+v; want %q", i, name, got, text)
			}
		}
	}
	for _, name := range []string{"article.stock", "article.sku"} {
		if got := events[2].Argument(t, name); got.Missing != "nil pointer" {
			t.Errorf("%s behind a null pointer is %+v", name, got)
		}
	}
	if d := text.Differences(testkit.ReadText(t, inventory.PID())); len(d) > 0 {
		t.Errorf("the program's text is not what it was: %v", d)
	}
}

// get fetches a page, with tries until the server answers or the time is over.
func get(t *testing.T, url string, within time.Duration) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		response, err := client.Get(url)
		if err == nil {
			defer response.Body.Close()
			body := make([]byte, 64)
			n, _ := response.Body.Read(body)
			return string(body[:n])
		}
		if time.Now().After(deadline) {
			t.Fatalf("get %s: %v", url, err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

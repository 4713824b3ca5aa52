// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestConfigRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyhole", "client.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a file that is not there: %v", err)
	}
	config, err := LoadOrNew(path)
	if err != nil {
		t.Fatal(err)
	}
	dev := Context{Name: "dev", ControlPlane: "127.0.0.1:7423", CA: "ca.pem", Certificate: "/elsewhere/user.pem", Key: "user.key", LogKey: "log.pub"}
	config.Use(Context{Name: "prod", ControlPlane: "cp:443", CA: "/a", Certificate: "/b", Key: "/c"})
	config.Use(Context{Name: "dev", ControlPlane: "old", CA: "x", Certificate: "y", Key: "z"})
	config.Use(dev)
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	dev.CA, dev.Key, dev.LogKey = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "user.key"), filepath.Join(dir, "log.pub")
	if len(got.Contexts) != 2 || got.Current != "dev" {
		t.Errorf("got %+v", got)
	}
	if found, ok := got.Find("dev"); !ok || !reflect.DeepEqual(found, dev) {
		t.Errorf("got %+v; want %+v", found, dev)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".client-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestConfigIsStrict(t *testing.T) {
	const good = "version: 1\ncurrent: dev\ncontexts:\n- {name: dev, controlPlane: \"h:1\", ca: a, certificate: b, key: c}\n"
	path := filepath.Join(t.TempDir(), "client.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	if _, err := Load(path); err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		"":                                     "empty",
		"version: 2\ncontexts: []\n":           "version 2",
		good + "extra: 1\n":                    `unknown key "extra"`,
		strings.Replace(good, "key: c", "", 1): "key are needed",
		strings.Replace(good, "current: dev", "current: prod", 1): `no context "prod"`,
		strings.Replace(good, "name: dev, ", "", 1):               "has no name",
		good + strings.SplitAfterN(good, "\n", 4)[3]:              "two contexts",
		strings.Replace(good, `controlPlane: "h:1", `, "", 1):     "controlPlane",
	} {
		write(text)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want %q", text, err, says)
		}
	}
}

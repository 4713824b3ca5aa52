// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"testing"
)

func TestNeedleFindsParts(t *testing.T) {
	secret := []byte("q7Xw-93k-Zt1m_PdY0aLr5Bc8Vn2Hs6J")
	n := NewNeedle(secret)
	for name, hay := range map[string][]byte{
		"whole":           []byte("before " + string(secret) + " after"),
		"first eight":     secret[:8],
		"last eight":      append([]byte("xx"), secret[24:]...),
		"hex":             []byte(hex.EncodeToString(secret)),
		"base64":          []byte(base64.StdEncoding.EncodeToString(secret)),
		"base64 in text":  []byte(base64.StdEncoding.EncodeToString(append([]byte("a "), secret...))),
		"base64 in text2": []byte(base64.StdEncoding.EncodeToString(append([]byte("a"), secret...))),
	} {
		if count, first := n.In(hay); count == 0 || first < 0 {
			t.Errorf("%s: not found", name)
		}
	}
	for name, hay := range map[string][]byte{
		"seven bytes": secret[:7],
		"every other": []byte("q7Xw-93xq7Xw-93x"),
		"nothing":     nil,
	} {
		if count, first := n.In(hay); count != 0 || first != -1 {
			t.Errorf("%s: found %d", name, count)
		}
	}
}

func TestNeedleInMemory(t *testing.T) {
	secret := []byte(hex.EncodeToString([]byte(t.Name()))[:32])
	for i := range secret {
		secret[i] ^= byte(os.Getpid() >> (i % 8)) // not in the executable
	}
	if places := NewNeedle(secret).InMemory(t, os.Getpid()); len(places) == 0 {
		t.Error("a secret of this process was not found in it")
	}
}

// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"os"
	"testing"
)

func TestNeedlesFindParts(t *testing.T) {
	secret := []byte("q7Xw-93k-Zt1m_PdY0aLr5Bc8Vn2Hs6J")
	n := NewNeedles()
	n.Add("other", []byte("0d6yTq-4Mw8KsXcL"))
	n.Add("secret", secret)
	for name, hay := range map[string][]byte{
		"whole":            []byte("before " + string(secret) + " after"),
		"first eight":      secret[:8],
		"last eight":       append([]byte("xx"), secret[24:]...),
		"hex":              []byte(hex.EncodeToString(secret)),
		"base64":           []byte(base64.StdEncoding.EncodeToString(secret)),
		"base64 in text":   []byte(base64.StdEncoding.EncodeToString(append([]byte("a "), secret...))),
		"base64 in text2":  []byte(base64.StdEncoding.EncodeToString(append([]byte("a"), secret...))),
		"behind zeros":     append(make([]byte, 9001), secret[3:12]...),
		"at a page's end":  append(make([]byte, 4096), secret[:8]...),
		"behind half a 0":  append(make([]byte, 4095), secret[:8]...),
		"in front of them": append(bytes.Clone(secret[24:]), make([]byte, 8192)...),
	} {
		if found := n.In(hay); found["secret"] == 0 || len(found) != 1 {
			t.Errorf("%s: found %v", name, found)
		}
	}
	for name, hay := range map[string][]byte{
		"seven bytes":       secret[:7],
		"every other":       []byte("q7Xw-93xq7Xw-93x"),
		"nothing":           nil,
		"zeros":             make([]byte, 20000),
		"less of its hex":   []byte(hex.EncodeToString(secret)[:15]),
		"eight of base64":   []byte(base64.StdEncoding.EncodeToString(secret)[:11]),
		"seven among zeros": append(make([]byte, 5000), append(bytes.Clone(secret[:7]), make([]byte, 5000)...)...),
	} {
		if found := n.In(hay); len(found) != 0 {
			t.Errorf("%s: found %v", name, found)
		}
	}
}

func TestNeedlesFindNumbers(t *testing.T) {
	const number = 0x5a17_c3d9_4be8_0066
	n := NewNeedles()
	n.AddNumber("number", number, "0.25e-300 as text")
	for name, hay := range map[string][]byte{
		"memory":    binary.LittleEndian.AppendUint64(nil, number),
		"text":      []byte("6491872725926674533,"),
		"digits":    []byte(`"6491872725926674534"`),
		"hex":       []byte("0x5a17c3d94be80066"),
		"protobuf":  binary.AppendUvarint([]byte{8}, number),
		"given one": []byte("is 0.25e-300 as text"),
	} {
		if found := n.In(hay); (found["number"] == 0) != (name == "text") {
			t.Errorf("%s: found %v", name, found)
		}
	}
}

func TestNeedlesInMemory(t *testing.T) {
	secret := []byte(hex.EncodeToString([]byte(t.Name()))[:32])
	for i := range secret {
		secret[i] ^= byte(os.Getpid() >> (i % 8)) // not in the executable
	}
	n := NewNeedles()
	n.Add("secret", secret)
	if found := n.InMemory(t, os.Getpid()); found["secret"] == "" {
		t.Error("a secret of this process was not found in it")
	}
}

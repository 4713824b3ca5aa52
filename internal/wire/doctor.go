// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"github.com/keyhole-dev/keyhole/internal/doctor"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Texts of a node are cut to these lengths, so that its control plane takes them.
const (
	maxName = 64
	maxText = 4000
)

// ToSelfTest is the message of a self-test.
func ToSelfTest(t *doctor.SelfTest) *keyholev1.SelfTest {
	m := &keyholev1.SelfTest{TrapNs: uint64(max(t.Trap, 0)), Hits: uint32(t.Hits), TookNs: uint64(t.Took)}
	for _, c := range t.Checks {
		m.Checks = append(m.Checks, &keyholev1.Check{Name: cut(c.Name, maxName), Outcome: cut(string(c.Outcome), maxName), Text: cut(c.Text, maxText)})
	}
	return m
}

// ToFindings are the messages of findings.
func ToFindings(list []doctor.Finding) []*keyholev1.Finding {
	out := make([]*keyholev1.Finding, len(list))
	for i, f := range list {
		out[i] = &keyholev1.Finding{
			Subject: cut(f.Subject, maxName), State: cut(string(f.State), maxName), Text: cut(f.Text, maxText), Advice: cut(f.Advice, maxText),
		}
	}
	return out
}

// cut shortens a text to so many bytes, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

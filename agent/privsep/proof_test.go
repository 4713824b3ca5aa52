// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestTargetIsCheckedByTheLoader has an agent that was taken over falsify what was resolved.
func TestTargetIsCheckedByTheLoader(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), time.Minute)
	for twist, want := range map[string]string{
		"digest":   "the plan on record is sha256:0000",
		"identity": "is not the process that was inspected",
		"path":     "is not the process that was inspected",
		"bytes":    "the executable is not what was analysed",
		"offset":   "the executable is not what was analysed",

		"middle of an instruction": "not what the inspector found",
		"function":                 "not what the inspector found",
		"place of a value":         "not what the inspector found",
		"name of a value":          "not what the inspector found",
		"one value less":           "not what the inspector found",
		"one value more":           "not what the inspector found",
		"the kernel's return":      "not what the inspector found",
		"the same, of Go":          "the kernel's return probe, in a Go program",
	} {
		t.Run(twist, func(*testing.T) {
			spec := spec
			if strings.HasPrefix(twist, "the ") {
				spec.Results = []string{probe.Duration}
			}
			session := s.newSession()
			s.refused(v, HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec), Twist: twist}, want)
		})
	}
}

// TestTargetIsOfTheGrantedRequest has an agent that was taken over resolve another request than the one that was granted.
func TestTargetIsOfTheGrantedRequest(t *testing.T) {
	s, v := newStage(t), startVault(t)
	granted := specOf(v.PID(), time.Minute)
	asked := granted
	asked.Arguments = []string{"note"}
	s.refused(v, HoldArgs{Session: "s-other", Spec: asked, Envelope: s.authority.grant("s-other", granted)}, "not what the inspector found")
}

// twist falsifies a Target, in such a way that it agrees with itself where that can be.
func twist(t *target.Target, how string) {
	site := &t.Sites[0]
	switch how {
	case "identity":
		t.Identity.StartTicks++
	case "path":
		t.Identity.Path = "/usr/bin/harmless"
	case "bytes":
		site.Bytes[len(site.Bytes)-1] ^= 1
	case "offset":
		site.FileOffset++
	case "middle of an instruction":
		site.Address, site.FileOffset, site.RuntimeAddress, site.Bytes = site.Address+1, site.FileOffset+1, site.RuntimeAddress+1, site.Bytes[1:]
	case "function":
		t.Function.Name = "main.Close"
	case "place of a value":
		t.Values[0].Data.Register = 7
	case "name of a value":
		v := &t.Values[0]
		v.Names, v.Types = append(v.Names, "other"), append(v.Types, "int")
	case "one value less":
		t.Values = t.Values[1:]
	case "the kernel's return", "the same, of Go":
		if how == "the kernel's return" {
			t.Identity.Language = "c"
		}
		end := *site
		end.Return = true
		t.Sites, t.GoroutineID = []target.Site{*site, end}, nil
		t.Returns = &target.Returns{By: target.ByThread, ByKernel: true, Values: t.Returns.Values}
	case "one value more":
		t.Values = append(t.Values, t.Values[0])
	}
}

// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

// clone copies a plan deeply, as it goes from one process to another.
func clone(t *testing.T, p *plan.Plan) *plan.Plan {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var c plan.Plan
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

func field(t *testing.T, p *plan.Plan, path string) *plan.Field {
	t.Helper()
	for i := range p.Fields {
		if p.Fields[i].Path == path {
			return &p.Fields[i]
		}
	}
	t.Fatalf("no field %s", path)
	return nil
}

// TestVerifyRefuses changes a good plan in one thing. The ops are those of testdata/go.listing.
func TestVerifyRefuses(t *testing.T) {
	spec, tgt, set := shop(t)
	good := compile(t, spec, tgt, set)
	const loadEmail, emitEmail, emitCity, emitCard, emitTotal = 10, 12, 13, 16, 18
	for what, c := range map[string]struct {
		change func(*plan.Plan)
		says   string
	}{
		"no sites":                    {func(p *plan.Plan) { p.Sites = nil }, "sites"},
		"no time to live":             {func(p *plan.Plan) { p.Limits.TTL = 0 }, "limits"},
		"a time to live without end":  {func(p *plan.Plan) { p.Limits.TTL = 1000 * time.Hour }, "limits"},
		"no rate":                     {func(p *plan.Plan) { p.Limits.Rate = 0 }, "limits"},
		"too many ops":                {func(p *plan.Plan) { p.Ops = append(p.Ops, make([]plan.Op, plan.MaxOps)...) }, "out of bounds"},
		"conditions beyond the ops":   {func(p *plan.Plan) { p.IfEnd = len(p.Ops) + 1 }, "out of bounds"},
		"conditions before the ops":   {func(p *plan.Plan) { p.IfEnd = -1 }, "out of bounds"},
		"a pool too large":            {func(p *plan.Plan) { p.Pool = make([]byte, 2000) }, "out of bounds"},
		"an unknown code":             {func(p *plan.Plan) { p.Ops[0].Code = 99 }, "unknown code"},
		"the end as an op":            {func(p *plan.Plan) { p.Ops[0].Code = plan.OpEnd }, "unknown code"},
		"a slot beyond the last":      {func(p *plan.Plan) { p.Ops[0].Dst = plan.MaxSlots }, "out of range"},
		"a source beyond the last":    {func(p *plan.Plan) { p.Ops[1].Src = 200 }, "out of range"},
		"a register beyond the last":  {func(p *plan.Plan) { p.Ops[0].Arg = 32 }, "register"},
		"a shift out of the register": {func(p *plan.Plan) { p.Ops[0].N = 8 }, "shift"},
		"a load of 3 bytes":           {func(p *plan.Plan) { p.Ops[loadEmail].Arg = 3 }, "3 bytes"},
		"a slot used before":          {func(p *plan.Plan) { p.Ops[1].Src = 15 }, "before it is filled"},
		"a read that serves nothing":  {func(p *plan.Plan) { p.Ops[emitTotal-1].Dst = 9 }, "filled for nothing"},
		"a read of something else":    {func(p *plan.Plan) { p.Ops = append(p.Ops, plan.Op{Code: plan.OpReg, Dst: 7}) }, "filled for nothing"},
		"a read that is thrown away": {func(p *plan.Plan) {
			p.Ops, p.IfEnd = append([]plan.Op{{Code: plan.OpReg, Arg: 7}}, p.Ops...), p.IfEnd+1
		}, "filled again"},
		"a constant beyond the pool":   {func(p *plan.Plan) { p.Ops[1].Aux = 1000 }, "pool"},
		"a constant across words":      {func(p *plan.Plan) { p.Ops[1].Aux = 1 }, "pool"},
		"an unknown comparison":        {func(p *plan.Plan) { p.Ops[1].N = 6 }, "comparison"},
		"an order of strings":          {func(p *plan.Plan) { p.Ops[6].Arg = plan.CmpLT }, "comparison"},
		"a condition after the hit":    {func(p *plan.Plan) { p.IfEnd = 1 }, "behind the conditions"},
		"a capture before the hit":     {func(p *plan.Plan) { p.IfEnd = len(p.Ops) }, "before the conditions"},
		"a condition nobody asked for": {func(p *plan.Plan) { p.Conditions = p.Conditions[:1] }, "without a condition"},
		"a condition without an op": {func(p *plan.Plan) {
			p.Conditions = append(p.Conditions, p.Conditions[0])
		}, "2 comparing ops for 3"},
		"a condition on what is redacted": {func(p *plan.Plan) { p.Conditions[0].Action = "digest" }, "redacted"},
		"a string emitted unsearched":     {func(p *plan.Plan) { p.Ops[emitEmail].Action = plan.ActKeep }, "no op searches for all"},
		"a string searched for others":    {func(p *plan.Plan) { p.Sets = append(p.Sets, "card"); p.Ops[emitEmail].Aux = 1 }, "no op searches for all"},
		"sets that there are not":         {func(p *plan.Plan) { p.Sets[0] = "shop/order" }, "nothing defines the set shop/order"},
		"sets that are in no order":       {func(p *plan.Plan) { p.Sets[0] = "email,card" }, "not in order"},
		"a pattern for nothing":           {func(p *plan.Plan) { p.Patterns = []detect.Pattern{{Name: "a/b", Pattern: "x"}} }, "searched for nowhere"},
		"a number emitted as it is":       {func(p *plan.Plan) { p.Ops[emitTotal].Action = plan.ActKeep }, "otherwise than as bucket:100000000"},
		"a bucket that begins later":      {func(p *plan.Plan) { p.Ops[emitTotal].Off++ }, "otherwise than as bucket:100000000"},
		"a bucket without a sign":         {func(p *plan.Plan) { p.Ops[emitTotal].N = 0 }, "otherwise than as bucket:100000000"},
		"a condition in the bucket":       {func(p *plan.Plan) { p.Pool[3] = 0x7f }, "redacted"},
		"a longer suffix":                 {func(p *plan.Plan) { p.Ops[emitCard].Aux = 5 }, "otherwise than as suffix:4"},
		"a suffix that is a prefix":       {func(p *plan.Plan) { p.Ops[emitCard].Action = plan.ActPrefix }, "otherwise than as suffix:4"},
		"more bytes than the field says":  {func(p *plan.Plan) { p.Ops[emitCity].N = 255 }, "another length"},
		"more bytes than the limit":       {func(p *plan.Plan) { p.Ops[emitCity].N, field(t, p, "user.profile.City").MaxBytes = 300, 300 }, "another length"},
		"a number of another size":        {func(p *plan.Plan) { p.Ops[emitTotal].Arg = 4 }, "something else"},
		"a string emitted as a number":    {func(p *plan.Plan) { p.Ops[emitCity] = plan.Op{Code: plan.OpEmit, Arg: 8} }, "something else"},
		"an emission too many":            {func(p *plan.Plan) { p.Ops = append(p.Ops, p.Ops[len(p.Ops)-1]) }, "no field stands for"},
		"an emission too few":             {func(p *plan.Plan) { p.Ops = p.Ops[:len(p.Ops)-1] }, "filled for nothing"},
		"no goroutine number":             {func(p *plan.Plan) { p.Goroutine = false }, "otherwise"},
		"a goroutine number as a digest":  {func(p *plan.Plan) { p.Ops[9].Action = plan.ActDigest }, "goroutine"},
		"a dropped field that emits": {func(p *plan.Plan) {
			f := field(t, p, "user.Password")
			f.Emits, f.Missing = true, ""
		}, "drop"},
		"a dropped field that is only missing": {func(p *plan.Plan) { field(t, p, "user.Password").Missing = event.Fault }, "drop"},
		"a kept field that is called dropped":  {func(p *plan.Plan) { field(t, p, "total").Action = "drop" }, "drop"},
		"a field nobody decided about":         {func(p *plan.Plan) { field(t, p, "total").Rule = "" }, "no rule"},
		"a struct that emits":                  {func(p *plan.Plan) { field(t, p, "total").Kind = "struct" }, "struct"},
		"a number of 264 bytes":                {func(p *plan.Plan) { field(t, p, "total").Size = 264 }, "264 bytes"},
		"an unknown action":                    {func(p *plan.Plan) { field(t, p, "total").Action = "hide" }, "unknown action"},
		"the suffix of a number":               {func(p *plan.Plan) { field(t, p, "total").Action = "suffix:1" }, "means nothing"},
		"a record too long":                    {func(p *plan.Plan) { field(t, p, "total").MaxBytes = 20000 }, "does not fit"},
		"an action on a load":                  {func(p *plan.Plan) { p.Ops[loadEmail].Action = plan.ActSuffix }, "does not emit"},
	} {
		t.Run(what, func(t *testing.T) {
			p := clone(t, good)
			if err := p.Verify(); err != nil {
				t.Fatal(err)
			}
			c.change(p)
			err := p.Verify()
			if err == nil {
				t.Fatalf("accepted:\n%s", p.Listing())
			}
			reason, listing, _ := strings.Cut(err.Error(), "\n")
			if !strings.Contains(reason, c.says) {
				t.Errorf("%q does not say %q", reason, c.says)
			}
			if !strings.HasPrefix(listing, good.Function) {
				t.Errorf("no listing comes with %q", reason)
			}
		})
	}
}

// TestVerifySeesEveryWeakening tries each other action in each emitting op: an op never leaves more than its field says.
func TestVerifySeesEveryWeakening(t *testing.T) {
	spec, tgt, set := shop(t)
	good := compile(t, spec, tgt, set)
	for i, op := range good.Ops {
		if op.Code != plan.OpEmit && op.Code != plan.OpBytes {
			continue
		}
		for action := range plan.ActBucket + 1 {
			for aux := range uint16(6) {
				if action == op.Action && aux == op.Aux {
					continue
				}
				p := clone(t, good)
				p.Ops[i].Action, p.Ops[i].Aux = action, aux
				if p.Verify() == nil {
					t.Errorf("op %d may leave by action %d, %d", i, action, aux)
				}
			}
		}
	}
}

func TestVerifyEmptyPlan(t *testing.T) {
	p := compile(t, request(""), checkout(), redact.Shipped())
	if n := p.MaxRecordBytes(); n != plan.RecordHeaderBytes+plan.ValueHeaderBytes+8 {
		t.Errorf("a record of a goroutine's number alone has %d bytes", n)
	}
}

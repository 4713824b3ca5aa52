// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Compile makes the plan of a request for a target under the rules. It is a function of its arguments alone: whoever
// compiles the same gets the same Plan, byte for byte. The plan was verified. An error is a *problem.Error: of code
// InvalidArgument or FailedPrecondition where the request cannot be carried out on this target, Internal where the target
// is not one that an honest inspector makes of this request.
func Compile(spec *probe.Spec, t *target.Target, rules *redact.Ruleset) (*Plan, error) {
	if err := spec.Validate(); err != nil {
		return nil, problem.New(problem.InvalidArgument, "%v", err)
	}
	if err := t.Validate(); err != nil {
		return nil, problem.New(problem.Internal, "%v", err)
	}
	if err := answers(t, spec); err != nil {
		return nil, problem.New(problem.Internal, "target: %v", err)
	}
	limits := spec.WithDefaults().Limits
	if spec.Aggregate != probe.AggregateNone {
		limits.ValueBytes = min(limits.ValueBytes, maxGroup)
	}
	c := compiler{
		target: t,
		rules:  rules,
		spec:   spec,
		plan: &Plan{
			Identity:     t.Identity,
			Function:     t.Function.Name,
			Sites:        slices.Clone(t.Sites),
			Limits:       Limits(limits),
			PolicyDigest: rules.Digest(),
			Aggregate:    spec.Aggregate,
		},
	}
	if err := c.compile(); err != nil {
		return nil, err
	}
	if err := c.plan.Verify(); err != nil {
		return nil, problem.New(problem.Internal, "%v", err)
	}
	return c.plan, nil
}

// answers says whether the values of a target are those that were asked for: each is an argument of the request or lies
// below one, in the order of the request, and none of them is left out.
func answers(t *target.Target, spec *probe.Spec) error {
	if len(spec.Arguments) > 0 {
		if err := answer(t.Values, spec.Arguments); err != nil {
			return err
		}
	}
	if (t.Returns != nil) != spec.Returns() {
		return errors.New("it pairs calls with their returns, or does not, otherwise than asked")
	}
	if t.Returns == nil {
		return nil
	}
	if (t.Returns.Failed != nil) != (spec.Errors != "") {
		return errors.New("it says what a failed call is, or does not, otherwise than asked")
	}
	return answer(t.Returns.Values, spec.ResultPaths())
}

func answer(values []target.Value, asked []string) error {
	next := 0 // the first path that no value has answered
	for i := range values {
		v := &values[i]
		switch {
		case v.Condition:
		case next < len(asked) && below(v.Path, asked[next]):
			next++
		case next > 0 && below(v.Path, asked[next-1]):
		default:
			return fmt.Errorf("the value %s was not asked for there", v.Path)
		}
	}
	if next < len(asked) {
		return fmt.Errorf("no value for %s", asked[next])
	}
	return nil
}

// below says whether a path is another one, or lies below it.
func below(path, other string) bool {
	rest, ok := strings.CutPrefix(path, other)
	return ok && (rest == "" || rest[0] == '.')
}

// lies says whether a value is a path or lies below it, by whichever of its names.
func lies(v *target.Value, path string) bool {
	f := redact.Field{Path: v.Path, Names: v.Names, Embedded: v.Embedded}
	return slices.ContainsFunc(f.Paths(), func(own string) bool { return below(own, path) })
}

type compiler struct {
	target *target.Target
	rules  *redact.Ruleset
	spec   *probe.Spec
	plan   *Plan
	build  builder

	decisions map[*target.Value]redact.Decision
}

func (c *compiler) compile() error {
	c.decisions = make(map[*target.Value]redact.Decision)
	c.withhold(pointers(c.target.Values), false)
	if r := c.target.Returns; r != nil {
		values := pointers(r.Values)
		if r.Failed != nil {
			values = append(values, r.Failed)
		}
		c.withhold(values, true)
	}
	if err := c.conditions(); err != nil {
		return err
	}
	c.plan.IfEnd = len(c.build.steps)
	aggregate := c.spec.Aggregate
	if g := c.target.GoroutineID; g != nil && g.Missing == "" && aggregate == probe.AggregateNone {
		c.plan.Goroutine = true
		c.build.use(Op{Code: OpEmit, Arg: goroutineBytes}, c.build.locate(&g.Data, goroutineBytes, false, "goroutine"), nil, "goroutine")
	}
	for i := range c.target.Values {
		if v := &c.target.Values[i]; !v.Condition && aggregate != probe.AggregateCount && aggregate != probe.AggregateDurations {
			c.plan.Fields = append(c.plan.Fields, c.field(&c.build, v))
			if err := c.fits("--arg", v.Path); err != nil {
				return err
			}
		}
	}
	if err := c.redactionsApply(); err != nil {
		return err
	}
	if err := c.aggregates(); err != nil {
		return err
	}
	var err error
	if c.plan.Ops, err = c.build.ops("--arg"); err != nil {
		return err
	}
	if err := c.returns(); err != nil {
		return err
	}
	if err := c.patterns(); err != nil {
		return err
	}
	return c.stack()
}

// patterns brings along what the rules define of the sets that values are searched for.
func (c *compiler) patterns() error {
	if len(c.plan.Sets) > maxSets {
		return problem.New(problem.InvalidArgument, "the rules search the values for %d different lists of sets, and one probe can for %d; capture fewer values", len(c.plan.Sets), maxSets)
	}
	for _, p := range c.rules.Patterns() {
		if slices.ContainsFunc(c.plan.Sets, func(list string) bool { return slices.Contains(detect.Own(list), p.Name) }) {
			c.plan.Patterns = append(c.plan.Patterns, p)
		}
	}
	if err := c.plan.definesSets(); err != nil {
		return problem.New(problem.InvalidArgument, "%v", err)
	}
	return nil
}

// fits refuses a record that outgrew what one probe can carry with its last value.
func (c *compiler) fits(flag, path string) error {
	if start, total := c.plan.layout(); start > maxStart || total > MaxOut {
		return problem.New(problem.InvalidArgument, "%s %s: with it a record can have %d bytes, more than one probe can carry; "+
			"capture fewer values, or fewer bytes of each", flag, path, total)
	}
	return nil
}

func pointers(values []target.Value) []*target.Value {
	var all []*target.Value
	for i := range values {
		all = append(all, &values[i])
	}
	return all
}

// decide is what becomes of a value.
func (c *compiler) decide(v *target.Value) redact.Decision { return c.decisions[v] }

// decideAlone is what becomes of a value whose bytes no other one has: what the rules say, or stricter where the requester asked for it.
func (c *compiler) decideAlone(v *target.Value) redact.Decision {
	kind := string(v.Kind)
	d := c.rules.Decide(redact.Field{
		Path: v.Path, Names: v.Names, Types: v.Types, Embedded: v.Embedded, TypeName: v.TypeName, Kind: kind, Size: v.Size, Function: c.target.Function.Name, Executable: c.target.Identity.Path, Workload: c.target.Identity.Workload,
	})
	for _, a := range v.Aliases {
		other := c.rules.Decide(redact.Field{
			Path: strings.Join(a.Names, "."), Names: a.Names, TypeName: a.TypeName, Kind: kind, Size: v.Size, Function: c.target.Function.Name, Executable: c.target.Identity.Path, Workload: c.target.Identity.Workload,
		})
		if both := d.With(other.Action, other.Rule).For(kind); both.Action != d.Action {
			both.Note = "the same bytes as " + strings.Join(a.Names, ".")
			d = both
		}
	}
	if c.target.Identity.Kernel != "" && v.Kind == target.KindPointer {
		// Whoever knows one address of the kernel's knows where all of it is, and no owner of a field speaks for that.
		d = d.With(redact.Action{Kind: redact.Drop}, redact.RuleKernelAddress)
	}
	for _, r := range c.spec.Redact {
		if !lies(v, r.Path) {
			continue
		}
		action, err := redact.ParseAction(r.Action)
		if err != nil {
			action = redact.Action{Kind: redact.Drop}
		}
		d = d.Join(redact.Decision{Action: action, Rule: redact.RuleRequest}.For(kind))
	}
	if d.Action.Kind == redact.Bucket && v.BigEndian {
		d.Action, d.Note = redact.Action{Kind: redact.Digest}, "digest: the kernel has no bucket for a number in another byte order"
	}
	return d
}

// redactionsApply refuses a redaction that no value is subject to: whoever asked for it believes that something is hidden.
func (c *compiler) redactionsApply() error {
	for _, r := range c.spec.Redact {
		isBelow := func(v target.Value) bool { return lies(&v, r.Path) }
		if !slices.ContainsFunc(c.target.Values, isBelow) && (c.target.Returns == nil || !slices.ContainsFunc(c.target.Returns.Values, isBelow)) {
			return problem.New(problem.InvalidArgument, "--redact %s=%s: no captured value is %s or lies below it", r.Path, r.Action, r.Path)
		}
	}
	return nil
}

// field is one captured value. Its op, if it has one, is appended.
func (c *compiler) field(b *builder, v *target.Value) Field {
	d := c.decide(v)
	f := Field{
		Path: v.Path, TypeName: v.TypeName, Kind: v.Kind, Size: v.Size, BigEndian: v.BigEndian,
		Action: d.Action.String(), Rule: d.Rule, Detail: d.Note,
	}
	switch {
	case d.Action.Kind == redact.Drop:
		f.Missing = event.Redacted
		return f
	case v.Missing != "":
		f.Missing, f.Detail = v.Missing, v.Detail
		return f
	case v.Kind == target.KindStruct, v.Kind == target.KindOther:
		f.Missing, f.Detail = event.Unsupported, "name one of its fields"
		return f
	}
	f.Emits = true
	if d.Action.Sets != "" && !slices.Contains(c.plan.Sets, d.Action.Sets) {
		c.plan.Sets = append(c.plan.Sets, d.Action.Sets)
	}
	op := Op{User: v.User && readsText(v.Kind)}
	c.plan.act(&op, d.Action, v.Kind)
	switch v.Kind {
	case target.KindString, target.KindBytes:
		op.Code, op.N, op.Off = OpBytes, c.plan.Limits.ValueBytes, int32(v.Offset)
		f.MaxBytes = leaves(d.Action, int(op.N))
		b.use(op, b.locate(&v.Data, 8, v.User, v.Path), b.locate(&v.Length, 8, v.User, v.Path), v.Path)
	case target.KindCString:
		op.Code, op.N, op.Off = OpCStr, textCap(v, c.plan.Limits.ValueBytes), int32(v.Offset)
		f.MaxBytes = leaves(d.Action, int(op.N))
		b.use(op, b.locate(&v.Data, 8, v.User, v.Path), nil, v.Path)
	case target.KindError:
		f.Size = 1
		op.Code, op.Arg = OpEmit, uint8(f.Size)
		f.MaxBytes = leaves(d.Action, f.Size)
		b.use(op, b.test(b.locate(&v.Data, v.Size, v.User, v.Path), v.Path), nil, v.Path)
	default:
		op.Code, op.Arg = OpEmit, uint8(v.Size)
		f.MaxBytes = leaves(d.Action, v.Size)
		b.use(op, b.locate(&v.Data, v.Size, v.User, v.Path), nil, v.Path)
	}
	return f
}

// readsText says whether the op that emits a value reads memory itself; other values were loaded before.
func readsText(k target.Kind) bool {
	return k == target.KindString || k == target.KindBytes || k == target.KindCString
}

// textCap is how many bytes of a C string are read: of an array never more than it has.
func textCap(v *target.Value, limit uint32) uint32 {
	if v.Capacity > 0 {
		return min(limit, uint32(v.Capacity))
	}
	return limit
}

// leaves is how many bytes of a value of at most n an action lets out.
func leaves(a redact.Action, n int) int {
	switch a.Kind {
	case redact.Keep, redact.Detect, redact.Allow, redact.Bucket:
		return n
	case redact.Digest:
		return DigestBytes
	case redact.Prefix, redact.Suffix:
		return min(a.N, n)
	default:
		return 0
	}
}

// conditions appends the ops that decide whether a hit is captured.
func (c *compiler) conditions() error {
	list, err := probe.ParseWhere(c.spec.Where)
	if err != nil {
		return problem.New(problem.InvalidArgument, "%v", err)
	}
	for _, condition := range list {
		if err := c.condition(condition); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) condition(condition probe.Condition) error {
	refuse := func(code, format string, args ...any) error {
		return problem.New(code, "--where %s: %s", condition, fmt.Sprintf(format, args...))
	}
	i := slices.IndexFunc(c.target.Values, func(v target.Value) bool { return v.Path == condition.Path })
	if i < 0 {
		return refuse(problem.Internal, "the target says nothing of %s", condition.Path)
	}
	v := &c.target.Values[i]
	if slices.ContainsFunc(c.target.Values[i+1:], func(other target.Value) bool { return other.Path == v.Path }) {
		return refuse(problem.InvalidArgument, "%s names more than one value", v.Path)
	}
	d := c.decide(v)
	switch {
	case mayCompare(d.Action, condition.Literal.Magnitude):
	case d.Action.Kind == redact.Bucket && d.Action.N > 0:
		return refuse(problem.InvalidArgument, "of %s only the power of two leaves from %d on (rule %s), and a condition would tell by firing what is withheld; "+
			"compare it with less, or ask the rules' owner to keep the field", v.Path, d.Action.N, d.Rule)
	default:
		return refuse(problem.InvalidArgument, "%s is redacted (%s, rule %s), and a condition would tell by firing what is withheld; "+
			"leave it out, or ask the rules' owner to keep the field", v.Path, d.Action, d.Rule)
	}
	if v.Missing != "" {
		return refuse(problem.FailedPrecondition, "%s cannot be read: %s", v.Path, strings.TrimRight(v.Missing+": "+v.Detail, ": "))
	}
	op, err := c.comparison(v, &condition)
	if err != nil {
		return refuse(problem.InvalidArgument, "%v", err)
	}
	c.plan.Conditions = append(c.plan.Conditions, Condition{
		Path: v.Path, Text: condition.String(), Action: d.Action.String(), Rule: d.Rule,
	})
	data, length := c.build.locate(&v.Data, dataSize(v), v.User, v.Path), (*node)(nil)
	if op.Code == OpIfBytes {
		length = c.build.locate(&v.Length, 8, v.User, v.Path)
	}
	c.build.use(op, data, length, v.Path)
	return nil
}

// mayCompare says whether comparing a value with a number of this magnitude (of text: 0) tells nothing that its action withholds. Of a
// number in a bucket it does not if the bucket begins behind it: whatever is in there is above, or below, alike.
func mayCompare(a redact.Action, magnitude uint64) bool {
	return a.Kind == redact.Keep || a.Kind == redact.Bucket && magnitude < uint64(a.N)
}

// dataSize is what the last load of a value's data reads: the scalar, or a pointer.
func dataSize(v *target.Value) int {
	switch v.Kind {
	case target.KindString, target.KindBytes, target.KindCString:
		return 8
	default:
		return v.Size
	}
}

var comparisons = map[probe.Op]uint8{
	probe.Equal: CmpEQ, probe.NotEqual: CmpNE, probe.Less: CmpLT, probe.LessOrEqual: CmpLE, probe.Greater: CmpGT,
	probe.GreaterOrEqual: CmpGE,
}

// comparison makes the op of a condition, without its slots, and puts its literal into the pool.
func (c *compiler) comparison(v *target.Value, condition *probe.Condition) (Op, error) {
	compare, literal := comparisons[condition.Op], &condition.Literal
	switch v.Kind {
	case target.KindInt, target.KindUint, target.KindLength:
		word, err := integer(v, literal)
		if err != nil {
			return Op{}, err
		}
		if v.Kind == target.KindInt {
			compare |= CmpSigned
		}
		if v.BigEndian {
			if compare != CmpEQ && compare != CmpNE {
				return Op{}, fmt.Errorf("%s is in the network's order of bytes, in which only == and != can be asked", v.Path)
			}
			word = bits.ReverseBytes64(word) >> (64 - 8*v.Size)
		}
		aux := c.pool(binary.LittleEndian.AppendUint64(nil, word))
		return Op{Code: OpIfInt, Arg: uint8(v.Size), N: uint32(compare), Aux: aux}, nil
	case target.KindBool:
		if literal.Kind != probe.Boolean {
			return Op{}, fmt.Errorf("%s is a %s: compare it with true or false", v.Path, v.TypeName)
		}
		// Everything but zero is true, so both comparisons are made with zero.
		compare = CmpEQ
		if literal.True == (condition.Op == probe.Equal) {
			compare = CmpNE
		}
		aux := c.pool(make([]byte, 8))
		return Op{Code: OpIfInt, Arg: uint8(v.Size), N: uint32(compare), Aux: aux}, nil
	case target.KindString, target.KindBytes, target.KindCString:
		if literal.Kind != probe.Text {
			return Op{}, fmt.Errorf(`%s is a %s: compare it with a "string"`, v.Path, v.TypeName)
		}
		op := Op{Code: OpIfBytes, Arg: compare, Off: int32(v.Offset), N: uint32(len(literal.Text)), User: v.User}
		if v.Kind == target.KindCString {
			op.Code = OpIfCStr
			if strings.IndexByte(literal.Text, 0) >= 0 {
				return Op{}, errors.New("no C string has a NUL inside")
			}
			if v.Capacity > 0 && len(literal.Text) >= v.Capacity {
				return Op{}, fmt.Errorf("%s holds at most %d bytes", v.Path, v.Capacity-1)
			}
		}
		op.Aux = c.pool([]byte(literal.Text))
		return op, nil
	default:
		return Op{}, fmt.Errorf("%s is a %s: only integers, booleans and strings can be compared", v.Path, v.TypeName)
	}
}

// integer is a literal as the value's type would hold it, in 64 bits.
func integer(v *target.Value, literal *probe.Literal) (uint64, error) {
	if literal.Kind != probe.Integer {
		return 0, fmt.Errorf("%s is a %s: compare it with an integer", v.Path, v.TypeName)
	}
	limit, bits := ^uint64(0)>>(64-8*v.Size), literal.Magnitude
	if v.Kind == target.KindInt {
		limit >>= 1
		if literal.Negative {
			limit++
			bits = -bits
		}
	} else if literal.Negative {
		limit = 0
	}
	if literal.Magnitude > limit {
		return 0, fmt.Errorf("no %s has that value", v.TypeName)
	}
	return bits, nil
}

// pool adds a constant at a multiple of 8 bytes and returns where it is. Verify says if there are too many.
func (c *compiler) pool(constant []byte) uint16 {
	at := len(c.plan.Pool)
	c.plan.Pool = append(c.plan.Pool, constant...)
	c.plan.Pool = append(c.plan.Pool, make([]byte, Padded(len(constant))-len(constant))...)
	return uint16(at)
}

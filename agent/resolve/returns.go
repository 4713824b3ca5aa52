// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// returns adds to a target where the function's calls end: at each of its return instructions or, where these are not all of its
// returns, at the kernel's return probe.
func (p *program) returns(t *target.Target, v *values, spec *probe.Spec) error {
	c, f := v.code, v.function
	if err := c.entersOnce(t.Sites[0].Address); err != nil {
		return refused(f.name, err)
	}
	if err := p.ends(t, c, f, spec); err != nil {
		if p, ok := errors.AsType[*problem.Error](err); ok {
			return p
		}
		return problem.New(problem.FailedPrecondition, "cannot see the returns of %s: %v; leave out --ret, --slower-than and --errors-only to see its calls",
			f.name, err)
	}
	r := t.Returns
	if c.isGo {
		if f.debug == nil || p.isAssembly(f) {
			return refused(f.name, fmt.Errorf("its calls cannot be paired with their returns: no debug information says that it was "+
				"compiled from Go, and knows its goroutine"))
		}
		r.By = target.ByGoroutine
		r.GoidOffset, _ = p.goidOffset()
	} else if p.isGo {
		return refused(f.name, fmt.Errorf("its calls cannot be paired with their returns: it is not of Go, in a program of Go's"))
	}
	for _, path := range spec.ResultPaths() {
		x, err := v.result(path)
		if err != nil {
			return err
		}
		r.Values = append(r.Values, x)
	}
	if spec.Errors != "" {
		var err error
		if r.Failed, err = v.failed(spec.Errors); err != nil {
			return err
		}
	}
	return nil
}

// entersOnce says whether a site is hit once for each call, and with the stack as it is at a call.
func (c *code) entersOnce(site uint64) error {
	first := c.spans[0]
	if c.isGo {
		check, ok := c.p.machine.golang.FindStackCheck(first.text, first.address)
		if ok && site < check.End || !ok && len(c.growths()) > 0 {
			return fmt.Errorf("no place behind its stack check is proved to be safe, and before it a call that grows the stack would be seen twice")
		}
	}
	m := c.p.machine
	if register, offset, ok := c.p.cfa(site); ok && (register != m.stackPointer || offset != m.returnAddress) {
		return fmt.Errorf("the frame information contradicts what the place for the probe is")
	}
	return nil
}

// returnSites proves all the places at which the function returns. All of it has to be decoded, in a straight line and beyond doubt; and
// it must not be left by a jump, behind which somebody else returns in its place.
func (c *code) returnSites() ([]target.Site, error) {
	m := c.p.machine
	data, err := m.data(c)
	if err != nil {
		return nil, err
	}
	var sites []target.Site
	for n, s := range c.spans {
		for at := 0; at < len(s.text); {
			pc := s.address + uint64(at)
			if data[pc] {
				at += m.size
				continue
			}
			i, ok := m.decode(s.text[at:], pc)
			if !ok {
				return nil, unseen{fmt.Errorf("the instruction at +%#x (% x) cannot be decoded, so that returns behind it may be missed",
					pc-c.spans[0].address, s.text[at:min(at+8, len(s.text))])}
			}
			raw := s.text[at : at+i.length]
			at += i.length
			switch i.flow {
			case flowReturn:
				if err := m.safe(raw); err != nil {
					return nil, err
				}
				if n > 0 {
					return nil, unseen{fmt.Errorf("it returns at %#x, in a part that lies elsewhere", pc)}
				}
				sites = append(sites, target.Site{
					Address: pc, Bytes: slices.Clone(raw), Where: fmt.Sprintf("return +%#x", pc-s.address), Return: true,
				})
				continue
			case flowUnusual:
				return nil, fmt.Errorf("the instruction at +%#x leaves it in an unusual way", pc-c.spans[0].address)
			}
			if err := c.staysInside(i, pc); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case len(sites) == 0:
		return nil, fmt.Errorf("it has no return instruction: it never returns, or something else returns for it")
	case len(sites) >= target.MaxSites:
		return nil, unseen{fmt.Errorf("it has %d return instructions; one probe sits on %d at most", len(sites), target.MaxSites-1)}
	}
	return sites, nil
}

// staysInside says whether a jump leads to somewhere in the function.
func (c *code) staysInside(i instruction, pc uint64) error {
	switch {
	case i.direct && i.flow != flowCall && !c.holds(i.to):
		return unseen{fmt.Errorf("it ends in a jump to another function (at +%#x), which returns in its place", pc-c.spans[0].address)}
	case !i.direct && i.flow == flowJump:
		// A switch jumps from inside of a frame, a tail call when it is gone.
		r := reach{c: c}
		if !r.inFrame(pc) {
			return unseen{fmt.Errorf("it may end in a jump to another function (at +%#x), which returns in its place", pc-c.spans[0].address)}
		}
	}
	return nil
}

// result finds the value of a path that begins with a result: its name or, as r0, r1, its place among the results.
func (v *values) result(path string) (target.Value, error) {
	names, err := split(path)
	if err != nil {
		return target.Value{}, err
	}
	if v.function.debug == nil {
		return target.Value{
			Path: path, Names: names, Kind: target.KindOther, Missing: "no debug information",
			Detail: "no debug information describes this function: its calls can be seen, its results cannot",
		}, nil
	}
	results := v.function.debug.Results
	i := slices.IndexFunc(results, func(r debuginfo.Parameter) bool { return r.Name == names[0] })
	if i < 0 {
		if place, ok := strings.CutPrefix(names[0], "r"); ok {
			if n, err := strconv.ParseUint(place, 10, 8); err == nil && int(n) < len(results) {
				i = int(n)
			}
		}
	}
	if i < 0 {
		e := problem.New(problem.NotFound, "%s has no result %q", v.function.name, names[0])
		for i, r := range results {
			e.Candidates = append(e.Candidates, resultName(i, r))
		}
		e.Message += "; it has " + strings.Join(append(e.Candidates, probe.Duration), ", ")
		return target.Value{}, e
	}
	value := target.Value{Path: path, Names: names, Kind: target.KindOther}
	t, err := v.program.debug.Type(results[i])
	if err != nil {
		miss(&value, unsupported(err.Error()))
		return value, nil
	}
	pl, gone := v.returned(i)
	if len(names) == 1 && isError(t) {
		value.Types = []string{t.Name}
		value.TypeName, value.Kind, value.Size = t.Name, target.KindError, 8
		if gone == nil {
			value.Data, gone = pl.scalar(8)
		}
		if gone != nil {
			miss(&value, gone)
		}
		return value, nil
	}
	return v.walk(value, names, t, pl, gone)
}

// resultName is how a path names the i-th result.
func resultName(i int, r debuginfo.Parameter) string {
	if isName(r.Name) {
		return r.Name
	}
	return "r" + strconv.Itoa(i)
}

func isError(t *debuginfo.Type) bool { return t.Kind == debuginfo.KindGoOther && t.Name == "error" }

// failed finds the result that says whether a call failed: the last one of Go's type error; where there is none, the last number.
func (v *values) failed(errors probe.Errors) (*target.Value, error) {
	if v.function.debug == nil {
		return nil, problem.New(problem.FailedPrecondition, "--errors-only: no debug information describes the results of %s", v.function.name)
	}
	number := -1
	for i, r := range slices.Backward(v.function.debug.Results) {
		t, err := v.program.debug.Type(r)
		switch {
		case err != nil:
		case errors == probe.ErrorsOnly && isError(t):
			x, err := v.result(resultName(i, r))
			return &x, err
		case number < 0 && (t.Kind == debuginfo.KindInt || t.Kind == debuginfo.KindUint):
			number = i
		}
	}
	if number < 0 {
		return nil, problem.New(problem.InvalidArgument, "--errors-only: %s has no result that says whether a call failed: neither an error nor an integer",
			v.function.name)
	}
	x, err := v.result(resultName(number, v.function.debug.Results[number]))
	return &x, err
}

// returned is where the i-th result is at a return. Who called finds it there, so it is the calling convention's word alone that counts.
func (v *values) returned(i int) (place, *missing) {
	if v.code.isGo {
		return v.goReturned(i)
	}
	return v.program.machine.convention.returned(v, i)
}

// goReturned: the registers begin anew for the results; those that do not fit are on the stack behind the arguments that are.
func (v *values) goReturned(wanted int) (place, *missing) {
	_, stack, err := v.assigned(v.function.debug.Parameters, -1, dictionary(v.function.name), 0)
	if err == nil {
		var pieces []piece
		if pieces, _, err = v.assigned(v.function.debug.Results, wanted, -1, (stack+7)&^7); err == nil {
			return place{pieces: pieces}, nil
		}
	}
	return place{}, unsupported(err.Error())
}

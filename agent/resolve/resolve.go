// SPDX-License-Identifier: Apache-2.0

// Package resolve finds what a request means in one running program: the function, the places where a breakpoint is proved to be
// safe, and where each requested value is when a thread arrives there. It is a function on bytes: it opens nothing, starts
// nothing and reads no memory of the process. All of what it reads was written by somebody else; it runs in the inspector, which can
// do nothing with what it might be talked into.
package resolve

import (
	"errors"
	"fmt"
	"io"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/goabi"
	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// An Input is a process as the monitor saw it.
type Input struct {
	Exe  io.ReaderAt // its executable
	Maps []byte      // a copy of /proc/PID/maps
	// Identity is filled but for BuildID, Language and Arch, which are read here.
	Identity target.Identity
}

// maxInlined bounds the places of inlined calls that a Target lists.
const maxInlined = 16

// Resolve finds the function, the site and the values of a request. Errors are a *problem.Error:
// NOT_FOUND and INVALID_ARGUMENT (ambiguous) name candidates, FAILED_PRECONDITION says why this program or this site
// cannot be probed.
func Resolve(in Input, spec *probe.Spec) (*target.Target, error) {
	var t *target.Target
	err := guard(in, func() error {
		p, err := open(in)
		if err != nil {
			return err
		}
		t, err = p.resolve(spec)
		return err
	})
	return t, err
}

// guard turns whatever goes wrong on the way into a problem that names the executable.
func guard(in Input, run func() error) error {
	err := objfile.Barrier("read", run)
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(problem.FailedPrecondition, "cannot analyse %s: %v", in.Identity.Path, err)
}

// A program is an executable that was opened for questions.
type program struct {
	in       Input
	identity target.Identity
	machine  *machine
	file     *objfile.File
	symbols  objfile.Symbols
	debug    *debuginfo.Data // nil: there is none
	isGo     bool

	frames      *debuginfo.Frames // nil until first asked for
	relocations map[uint64]uint64 // nil until first asked for
}

func open(in Input) (*program, error) {
	f, err := objfile.Open(in.Exe, in.Identity.Size)
	if err != nil {
		return nil, err
	}
	p := &program{in: in, identity: in.Identity, file: f}
	if p.machine = machines[f.Machine()]; p.machine == nil {
		return nil, fmt.Errorf("%v is not supported", f.Machine())
	}
	p.identity.Arch = p.machine.arch
	p.identity.BuildID = f.BuildID()
	p.identity.Language = "c"
	if f.HasSection(".gopclntab") || f.HasSection(".data.rel.ro.gopclntab") || f.HasSection(".go.buildinfo") {
		p.isGo = true
		p.identity.Language = "go"
		if version, err := goabi.Version(in.Exe); err == nil {
			p.identity.Language = version
		}
	}
	if p.symbols, err = f.Functions(); err != nil {
		return nil, err
	}
	if p.debug, err = debuginfo.Load(f); err != nil && !errors.Is(err, debuginfo.ErrNone) {
		return nil, err
	}
	if err := p.addNames(); err != nil {
		return nil, err
	}
	return p, nil
}

// addNames finds functions where the symbol table was taken away and something else still names them.
func (p *program) addNames() error {
	if p.file.HasSection(".symtab") {
		return nil
	}
	if p.debug != nil {
		named, err := p.debug.Functions()
		if err != nil {
			return err
		}
		for _, f := range named {
			p.symbols = append(p.symbols, objfile.Symbol{Name: f.Name, Address: f.Address, Size: f.Size})
		}
	} else if p.isGo {
		// Go's runtime needs the names of its functions: the linker never takes this table away.
		named, err := p.file.GoFunctions()
		if err != nil {
			return err
		}
		p.symbols = append(p.symbols, named...)
	}
	p.symbols.Sort()
	return nil
}

func (p *program) resolve(spec *probe.Spec) (*target.Target, error) {
	f, err := p.find(spec.Function)
	if err != nil {
		return nil, err
	}
	c, err := p.code(f)
	if err != nil {
		return nil, refused(f.name, err)
	}
	site, err := c.site()
	if err != nil {
		return nil, refused(f.name, err)
	}
	if err := p.place(&site); err != nil {
		return nil, refused(f.name, err)
	}
	t := &target.Target{Identity: p.identity, Sites: []target.Site{site}}
	t.Function = p.describe(f)
	if f.debug != nil && p.identity.Language == "c" {
		if producer := p.debug.Producer(f.address); producer != "" {
			t.Identity.Language = language(producer)
		}
	}
	if f.debug != nil && f.debug.Inlined {
		inlined, err := p.debug.InlinedAt(f.debug, maxInlined)
		if err != nil {
			return nil, err
		}
		t.Function.InlinedSum = inlined.Sum
		for _, at := range inlined.Places {
			t.Function.InlinedAt = append(t.Function.InlinedAt, target.Place(at))
		}
	}
	v := &values{program: p, function: f, code: c, site: site.Address}
	if t.Values, t.Notes, err = v.of(spec); err != nil {
		return nil, err
	}
	t.GoroutineID = p.goroutine(f)
	if spec.Stack {
		if t.Stack, err = p.stack(); err != nil {
			return nil, err
		}
		t.Notes = append(t.Notes, p.stackNote())
	}
	if spec.Returns() {
		if err := p.returns(t, v, spec); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// refused says that a function exists and cannot be probed.
func refused(name string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(problem.FailedPrecondition, "cannot probe %s: %v", name, err)
}

// language shortens a producer: "GNU C17 12.2.0 -mtune=generic -O2 -g" to "c: GNU C17 12.2.0".
func language(producer string) string {
	words := 0
	for i, r := range producer {
		if r == ' ' {
			if words++; words == 3 {
				producer = producer[:i]
				break
			}
		}
	}
	return fmt.Sprintf("c: %.60s", producer)
}

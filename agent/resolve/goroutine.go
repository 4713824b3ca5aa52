// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/goabi"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// takesG are functions of Go's runtime with a parameter of type *g: by any of them the debug information of the type
// is found without a search through all of it.
var takesG = []string{"runtime.casgstatus", "runtime.ready", "runtime.goready", "runtime.gfput", "runtime.execute", "runtime.gfget"}

// goroutine says where the number of the running goroutine is: in the runtime.g that a register holds in functions of
// ABIInternal. It is nil where that is not known.
func (p *program) goroutine(f *function) *target.Value {
	if !p.isGo || p.debug == nil || f.debug == nil || !f.debug.IsGo || p.isAssembly(f) {
		return nil
	}
	offset, ok := p.goidOffset()
	if !ok {
		return nil
	}
	return &target.Value{
		Path: "goroutine", Names: []string{"goroutine"}, TypeName: "uint64", Kind: target.KindUint, Size: 8,
		Data: target.Location{Register: p.machine.golang.G, Offsets: []int64{offset}},
	}
}

// isAssembly says whether a function may have been written in assembly, where any register holds anything.
func (p *program) isAssembly(f *function) bool {
	for _, s := range p.symbols.At(f.address) {
		if strings.HasSuffix(s.Name, goabi.ABI0Suffix) {
			return true
		}
	}
	return strings.HasSuffix(f.debug.File, ".s") || !strings.Contains(p.debug.Producer(f.address), "cmd/compile")
}

// goidOffset is where the number is in runtime.g.
func (p *program) goidOffset() (int64, bool) {
	for _, name := range takesG {
		for _, s := range p.symbols {
			if s.Name != name {
				continue
			}
			f, err := p.debug.FunctionAt(s.Address)
			if err != nil {
				break
			}
			for _, parameter := range f.Parameters {
				if offset, ok := p.goidIn(parameter); ok {
					return offset, true
				}
			}
		}
	}
	return 0, false
}

func (p *program) goidIn(parameter debuginfo.Parameter) (int64, bool) {
	t, err := p.debug.Type(parameter)
	if err != nil || t.Kind != debuginfo.KindPointer {
		return 0, false
	}
	g, err := p.debug.Elem(t)
	if err != nil || g.Kind != debuginfo.KindStruct || g.Name != "runtime.g" {
		return 0, false
	}
	fields, err := p.debug.Fields(g)
	if err != nil {
		return 0, false
	}
	for _, f := range fields {
		if ft, err := p.debug.FieldType(g, f); err == nil && f.Name == "goid" && ft.Size == 8 {
			return f.Offset, true
		}
	}
	return 0, false
}

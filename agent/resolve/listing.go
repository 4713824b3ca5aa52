// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Listing is what can be probed in a program.
type Listing struct {
	Executable string `json:"executable"` // its path, for people
	// Stripped says that no debug information describes parameters.
	Stripped  bool   `json:"stripped"`
	Matched   int    `json:"matched"` // before the limit
	Functions []Info `json:"functions"`
}

// An Info is one function of a Listing. Its name can be pasted into a request.
type Info struct {
	Name       string      `json:"name"`
	Signature  string      `json:"signature,omitempty"`
	File       string      `json:"file,omitempty"`
	Line       int         `json:"line,omitempty"`
	Parameters []Parameter `json:"parameters,omitempty"`
	Refused    string      `json:"refused,omitempty"` // why it cannot be probed; empty if nothing is known against it
}

// A Parameter is one of a function as declared.
type Parameter struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// maxListed bounds the functions of one listing, whatever its limit.
const maxListed = 10_000

// Functions lists the functions whose names hold the pattern (in any case; with * for anything), by name, at most limit of them
// (0: as many as there may be). Errors are a *problem.Error.
func Functions(in Input, pattern string, limit int) (*Listing, error) {
	var l *Listing
	err := guard(in, func() error {
		p, err := open(in)
		if err != nil {
			return err
		}
		l, err = p.list(pattern, limit)
		return err
	})
	return l, err
}

func (p *program) list(pattern string, limit int) (*Listing, error) {
	if len(p.symbols) == 0 {
		return nil, p.stripped()
	}
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	l := &Listing{Executable: p.identity.Path, Stripped: p.debug == nil}
	matches := matcher(pattern)
	var found []function
	for _, s := range p.symbols {
		if n := len(found); n > 0 && found[n-1].address == s.Address || !matches(s.Name) || strings.HasSuffix(s.Name, ".cold") {
			continue
		}
		if _, err := p.file.FileOffset(s.Address); err != nil {
			continue
		}
		found = append(found, function{name: s.Name, address: s.Address})
	}
	l.Matched = len(found)
	slices.SortFunc(found, func(a, b function) int { return cmp.Compare(a.name, b.name) })
	for _, f := range found[:min(len(found), limit)] {
		if err := p.attachDebug(&f); err != nil {
			return nil, err
		}
		l.Functions = append(l.Functions, p.info(f))
	}
	return l, nil
}

// matcher reads a pattern: text that a name holds, without regard to case, parentheses and stars of receivers; with a * in it that is none of
// a receiver, for any text.
func matcher(pattern string) func(string) bool {
	wanted := strings.ToLower(strings.NewReplacer("(*", "", "(", "", ")", "").Replace(pattern))
	parts := strings.Split(wanted, "*")
	return func(name string) bool {
		rest := strings.ToLower(plain(name))
		for _, part := range parts {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				return false
			}
			rest = after
		}
		return true
	}
}

func (p *program) info(f function) Info {
	d := p.describe(&f)
	i := Info{Name: f.name, Signature: d.Signature, File: d.File, Line: d.Line}
	if f.debug != nil {
		for _, parameter := range f.debug.Parameters {
			i.Parameters = append(i.Parameters, Parameter{parameter.Name, p.typeName(parameter)})
		}
	}
	c, err := p.code(&f)
	if err == nil {
		_, err = c.site()
	}
	if err != nil {
		i.Refused = err.Error()
	}
	return i
}

func (p *program) describe(f *function) target.Function {
	d := target.Function{Name: f.name, Address: f.address}
	if end := p.symbols.End(f.address); end > f.address {
		d.Size = end - f.address
	}
	if f.debug == nil {
		return d
	}
	d.File, d.Line = f.debug.File, f.debug.Line
	d.Signature = p.signature(f)
	return d
}

func (p *program) typeName(parameter debuginfo.Parameter) string {
	t, err := p.debug.Type(parameter)
	if err != nil {
		return "?"
	}
	return t.Name
}

// signature writes a function as its source does.
func (p *program) signature(f *function) string {
	if f.debug.IsGo {
		return p.goSignature(f)
	}
	var list []string
	for _, parameter := range f.debug.Parameters {
		list = append(list, cDeclaration(p.typeName(parameter), parameter.Name))
	}
	result := "void"
	if len(f.debug.Results) == 1 {
		result = p.typeName(f.debug.Results[0])
	}
	if len(list) == 0 {
		list = []string{"void"}
	}
	return cDeclaration(result, f.debug.Name) + "(" + strings.Join(list, ", ") + ")"
}

func cDeclaration(typ, name string) string {
	if strings.HasSuffix(typ, "*") {
		return typ + name
	}
	return strings.TrimSpace(typ + " " + name)
}

// goSignature writes "func (c *main.Cart) Checkout(card string) error" for main.(*Cart).Checkout.
func (p *program) goSignature(f *function) string {
	parameters := f.debug.Parameters
	name := f.debug.Name
	receiver := ""
	local := name[strings.LastIndex(name, "/")+1:]
	if i := strings.Index(local, "."); i >= 0 {
		local = local[i+1:] // behind the package
	}
	if dot := strings.LastIndex(base(local), "."); dot >= 0 && len(parameters) > 0 && !strings.Contains(local, ".func") {
		receiver = "(" + parameters[0].Name + " " + p.typeName(parameters[0]) + ") "
		parameters = parameters[1:]
		local = local[strings.LastIndex(local, ".")+1:]
	}
	return "func " + receiver + local + "(" + p.goList(parameters) + ")" + p.goResults(f.debug.Results)
}

func (p *program) goList(parameters []debuginfo.Parameter) string {
	var list []string
	for _, parameter := range parameters {
		name := parameter.Name
		if strings.HasPrefix(name, "~") {
			name = "" // made up by the compiler
		}
		list = append(list, strings.TrimSpace(name+" "+p.typeName(parameter)))
	}
	return strings.Join(list, ", ")
}

func (p *program) goResults(results []debuginfo.Parameter) string {
	list := p.goList(results)
	switch {
	case list == "":
		return ""
	case len(results) == 1 && path.Base(results[0].Name)[0] == '~':
		return " " + list
	}
	return " (" + list + ")"
}

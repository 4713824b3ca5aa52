// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"bytes"
	"debug/dwarf"
	"errors"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	goTarget = "test/targets/gofuncs"
	cTarget  = "test/targets/cfuncs/main.c"
)

func load(t testing.TB, path string) (*objfile.File, *Data) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	d, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

func functionNamed(t testing.TB, f *objfile.File, d *Data, name string) *Function {
	t.Helper()
	symbols, err := f.Functions()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s objfile.Symbol) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no symbol %s", name)
	}
	fn, err := d.FunctionAt(symbols[i].Address)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return fn
}

func TestGoFunction(t *testing.T) {
	f, d := load(t, testkit.BuildGo(t, goTarget))
	for range 2 { // the second time by the index of the unit
		fn := functionNamed(t, f, d, "main.(*User).Greet")
		if fn.Name != "main.(*User).Greet" || !fn.IsGo || fn.IsWrapper || fn.Line == 0 || !strings.HasSuffix(fn.File, goTarget+"/main.go") {
			t.Errorf("%+v", fn)
		}
		var names, types []string
		for _, p := range fn.Parameters {
			typ, err := d.Type(p)
			if err != nil {
				t.Fatal(err)
			}
			names, types = append(names, p.Name), append(types, typ.Name)
		}
		if !slices.Equal(names, []string{"u", "times"}) || !slices.Equal(types, []string{"*main.User", "int"}) {
			t.Errorf("parameters %q of types %q", names, types)
		}
	}
	if got := d.Producer(functionNamed(t, f, d, "main.Leaf").LowPC); !strings.HasPrefix(got, "Go cmd/compile go1.") {
		t.Errorf("producer %q", got)
	}
	if fn, err := d.FunctionAt(1); !errors.Is(err, dwarf.ErrUnknownPC) {
		t.Errorf("a function at address 1: %+v, %v", fn, err)
	}
}

func TestTypes(t *testing.T) {
	f, d := load(t, testkit.BuildGo(t, goTarget))
	user, err := d.Type(functionNamed(t, f, d, "main.(*User).Greet").Parameters[0])
	if err != nil {
		t.Fatal(err)
	}
	if user.Kind != KindPointer {
		t.Fatalf("%+v", user)
	}
	if user, err = d.Elem(user); err != nil {
		t.Fatal(err)
	}
	compareFields(t, d, user, []string{"Name string 0 16", "Contact *main.Contact 16 8", "Age int 24 8", "Admin bool 32 1", "Rank main.Rank 34 2"})
	var kinds []Kind
	for _, p := range functionNamed(t, f, d, "main.Opaque").Parameters {
		typ, err := d.Type(p)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, typ.Kind)
	}
	if want := []Kind{KindGoOther, KindGoOther, KindGoOther, KindGoOther, KindFloat, KindInt}; !slices.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}

	f, d = load(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g"))
	customer, err := d.Type(functionNamed(t, f, d, "structs").Parameters[0])
	if err != nil {
		t.Fatal(err)
	}
	if customer.Name != "struct customer *" {
		t.Errorf("%q", customer.Name)
	}
	if customer, err = d.Elem(customer); err != nil {
		t.Fatal(err)
	}
	compareFields(t, d, customer, []string{
		"id int64_t 0 8", "home struct address 8 40", "work struct address * 48 8", "name char[16] 56 16", "flag unsigned int 72 4 bits", " union {...} 76 4",
	})
	text, err := d.Type(functionNamed(t, f, d, "strings").Parameters[1])
	if err != nil {
		t.Fatal(err)
	}
	elem, err := d.Elem(text)
	if err != nil || text.Name != "text" || elem.Name != "const char" || !elem.IsChar {
		t.Errorf("%+v of %+v, %v", text, elem, err)
	}
}

func compareFields(t *testing.T, d *Data, of *Type, want []string) {
	t.Helper()
	fields, err := d.Fields(of)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fields {
		typ, err := d.FieldType(of, f)
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Join([]string{f.Name, typ.Name, strconv.FormatInt(f.Offset, 10), strconv.FormatInt(typ.Size, 10)}, " ")
		if f.Bits {
			line += " bits"
		}
		got = append(got, line)
	}
	if !slices.Equal(got, want) {
		t.Errorf("fields of %s:\n%s\nwant\n%s", of.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestInlined(t *testing.T) {
	_, d := load(t, testkit.BuildGo(t, goTarget))
	found, err := d.InlinedNamed(func(name string) bool { return name == "main.Inlined" }, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Name != "main.Inlined" || found[0].Sum < 1 {
		t.Fatalf("%+v", found)
	}
	if p := found[0].Places[0]; p.Function != "main.round" || !strings.HasSuffix(p.File, "main.go") || p.Line == 0 {
		t.Errorf("%+v", p)
	}

	f, d := load(t, testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2", "-g"))
	if found, err = d.InlinedNamed(func(name string) bool { return name == "inlined" }, 10); err != nil || len(found) != 1 || found[0].Sum != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	named, err := d.Functions()
	if err != nil {
		t.Fatal(err)
	}
	fn := functionNamed(t, f, d, "checked")
	if !slices.ContainsFunc(named, func(n Named) bool { return n.Name == "checked" && n.Address == fn.LowPC && n.Size > 0 }) {
		t.Error("a walk over all functions does not find one of them")
	}
}

func TestNone(t *testing.T) {
	b, err := os.ReadFile(testkit.BuildC(t, "cfuncs", []string{cTarget}, "-O2"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(f); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	// Programs without debug information have frame information for exceptions, and all say the same at a function's first instruction.
	symbols, err := f.Functions()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s objfile.Symbol) bool { return s.Name == "many" })
	register, offset, ok := ReadFrames(f).CFA(symbols[i].Address)
	if !ok || register != 7 || offset != 8 {
		t.Errorf("the frame of many is at register %d + %d, %v", register, offset, ok)
	}
	if _, _, ok := ReadFrames(f).CFA(1); ok {
		t.Error("there is a frame at address 1")
	}
}

func TestPieces(t *testing.T) {
	frame := &context{frameBase: &Location{Kind: LocationComputed, Base: BaseCFA}}
	entry := &context{atEntry: true}
	for name, c := range map[string]struct {
		expr string
		in   *context
		want []Location // nil: refused
	}{
		"nothing":             {"", frame, []Location{{}}},
		"register":            {"\x55", frame, []Location{{Kind: LocationRegister, Base: 5}}},
		"register by number":  {"\x90\x11", frame, []Location{{Kind: LocationRegister, Base: 17}}},
		"frame base":          {"\x91\x6c", frame, []Location{{Kind: LocationMemory, Base: BaseCFA, Add: -20}}},
		"no frame base":       {"\x91\x6c", &context{}, nil},
		"canonical frame":     {"\x9c", frame, []Location{{Kind: LocationMemory, Base: BaseCFA}}},
		"frame, plus":         {"\x9c\x23\x10", frame, []Location{{Kind: LocationMemory, Base: BaseCFA, Add: 16}}},
		"register, offset":    {"\x77\x08", frame, []Location{{Kind: LocationMemory, Base: 7, Add: 8}}},
		"followed":            {"\x75\x08\x06\x23\x04", frame, []Location{{Kind: LocationMemory, Base: 5, Loads: []int64{8}, Add: 4}}},
		"number in register":  {"\x75\x00\x9f", frame, []Location{{Kind: LocationComputed, Base: 5}}},
		"register and number": {"\x75\x00\x08\xff\x22\x09\xff\x1c\x9f", frame, []Location{{Kind: LocationComputed, Base: 5, Add: 256}}},
		"number":              {"\x31\x9f", frame, []Location{{Kind: LocationComputed, Base: baseNone, Add: 1}}},
		"string in two":       {"\x50\x93\x08\x53\x93\x08", frame, []Location{{Kind: LocationRegister, Base: 0, Size: 8}, {Kind: LocationRegister, Base: 3, Size: 8}}},
		"second part gone":    {"\x50\x93\x08\x93\x08", frame, []Location{{Kind: LocationRegister, Base: 0, Size: 8}, {Kind: LocationNone, Size: 8}}},
		"entry value":         {"\xa3\x01\x55\x9f", entry, []Location{{Kind: LocationComputed, Base: 5}}},
		"entry value, later":  {"\xa3\x01\x55\x9f", frame, nil},
		"two registers":       {"\x50\x53", frame, nil},
		"sum of registers":    {"\x75\x00\x74\x00\x22", frame, nil},
		"call":                {"\x98\x00\x00", frame, nil},
		"thread storage":      {"\x08\x00\xe0", frame, nil},
		"cut off":             {"\x0e\x01\x02", frame, nil},
		"piece of no size":    {"\x50\x93\x00", frame, nil},
		"underflow":           {"\x06", frame, nil},
		"entry value cut off": {"\xa3\x7f\x55", entry, nil},
	} {
		got, err := pieces([]byte(c.expr), c.in)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: %+v, want a refusal", name, got)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

// FuzzPieces runs any bytes as an expression.
func FuzzPieces(f *testing.F) {
	for _, expr := range []string{"\x91\x6c", "\x50\x93\x08\x53\x93\x08", "\x75\x08\x06\x23\x04", "\xa3\x01\x55\x9f"} {
		f.Add([]byte(expr), true)
	}
	f.Fuzz(func(t *testing.T, expr []byte, atEntry bool) {
		list, err := pieces(expr, &context{frameBase: &Location{Kind: LocationComputed, Base: BaseCFA}, atEntry: atEntry})
		if err == nil && (len(list) == 0 || len(list) > 65) {
			t.Errorf("%d pieces of % x", len(list), expr)
		}
	})
}

// FuzzFrames looks for an address in any frame information.
func FuzzFrames(f *testing.F) {
	file, _ := load(f, testkit.BuildC(f, "cfuncs", []string{cTarget}, "-O2", "-g"))
	s := ReadFrames(file)
	f.Add(s.debug, s.eh, s.index, s.ehAddress)
	f.Fuzz(func(t *testing.T, debug, eh, index []byte, address uint64) {
		s := &Frames{debug: debug, eh: eh, ehAddress: address, index: index, indexAddress: address}
		s.readIndex()
		for _, pc := range []uint64{0, address, address + 64, 1 << 40} {
			if register, _, ok := s.CFA(pc); ok && (register < 0 || register > maxGeneral) {
				t.Errorf("the frame is at register %d", register)
			}
		}
	})
}

// FuzzData changes the debug information of a program anywhere and asks all that a request can ask.
func FuzzData(f *testing.F) {
	for _, flags := range [][]string{{"-O2", "-g"}, {"-O0", "-gdwarf-4"}} {
		file, _ := load(f, testkit.BuildC(f, "cfuncs", []string{cTarget}, flags...))
		var sections [5][]byte
		for i, name := range []string{".debug_info", ".debug_abbrev", ".debug_loclists", ".debug_rnglists", ".debug_loc"} {
			var err error
			if sections[i], _, err = file.Section(name); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(sections[0], sections[1], sections[2], sections[3], sections[4])
	}
	f.Fuzz(func(_ *testing.T, info, abbrev, loclists, rnglists, loc []byte) {
		d := newData(map[string][]byte{
			".debug_info": info, ".debug_abbrev": abbrev, ".debug_loclists": loclists, ".debug_rnglists": rnglists, ".debug_loc": loc,
			".debug_str": make([]byte, 4096), ".debug_line_str": make([]byte, 4096),
		})
		_ = objfile.Barrier("ask", func() error { return askAll(d) })
	})
}

func askAll(d *Data) error {
	if err := d.parse(); err != nil {
		return err
	}
	named, err := d.Functions()
	if err != nil {
		return err
	}
	if _, err := d.InlinedNamed(func(string) bool { return true }, 3); err != nil {
		return err
	}
	for _, n := range named[:min(len(named), 32)] {
		fn, err := d.FunctionAt(n.Address)
		if err != nil {
			continue
		}
		for _, p := range fn.Parameters[:min(len(fn.Parameters), 32)] {
			if _, _, err := d.Locate(p, fn.LowPC); err != nil {
				continue
			}
			t, err := d.Type(p)
			for depth := 0; err == nil && depth < 4; depth++ {
				fields, _ := d.Fields(t)
				for _, f := range fields[:min(len(fields), 16)] {
					if _, err := d.FieldType(t, f); err != nil {
						break
					}
				}
				t, err = d.Elem(t)
			}
		}
	}
	return nil
}

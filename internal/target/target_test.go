// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func good() *Target {
	return &Target{
		Identity: Identity{
			PID: 4711, StartTicks: 123456, Comm: "shop", Path: "/srv/shop", BuildID: "7d9d3a0b", Device: 2049, Inode: 4242, Size: 8 << 20,
			Language: "go1.26.8", Arch: "amd64",
		},
		Function: Function{
			Name: "main.(*Cart).Checkout", Signature: "func (c *Cart) Checkout(card string)", File: "/src/cart.go", Line: 88, Address: 0x1000, Size: 0x100,
			InlinedAt: []Place{{Function: "main.buy", File: "/src/buy.go", Line: 3}}, InlinedSum: 1,
		},
		Sites: []Site{{Address: 0x1010, FileOffset: 0x1010, RuntimeAddress: 0x401010, Bytes: []byte{0x55}, Where: "after the stack check"}},
		Values: []Value{
			{
				Path: "c.user.email", Names: []string{"c", "user", "Contact", "email"}, TypeName: "string", Kind: KindString, Size: 16,
				Data: Location{Register: 0, Offsets: []int64{24, 64}}, Length: Location{Register: 0, Offsets: []int64{24, 72}},
			},
			{Path: "qty", Names: []string{"qty"}, TypeName: "int32", Kind: KindInt, Size: 4, Data: Location{Register: 3, Shift: 4}},
			{Path: "x", Names: []string{"x"}, TypeName: "float64", Kind: KindFloat, Size: 8, Missing: "float register", Detail: "in XMM0"},
			{Path: "name", Names: []string{"name"}, TypeName: "char [16]", Kind: KindCString, Data: Location{Register: 5}, Offset: 24, Capacity: 16},
			{Path: "items.0.sku", Names: []string{"items", "sku"}, TypeName: "uint8", Kind: KindUint, Size: 1, Data: Location{Register: 5, Offsets: []int64{-8}}},
		},
		GoroutineID: &Value{Path: "goid", Names: []string{"goid"}, Kind: KindUint, Size: 8, Data: Location{Register: 14, Offsets: []int64{152}}},
	}
}

func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	email := func(change func(*Value)) func(*Target) { return func(t *Target) { change(&t.Values[0]) } }
	qty := func(change func(*Value)) func(*Target) { return func(t *Target) { change(&t.Values[1]) } }
	for what, c := range map[string]struct {
		change func(*Target)
		says   string // empty: valid
	}{
		"nothing":                     {func(t *Target) { *t = Target{} }, "identity"},
		"process 0":                   {func(t *Target) { t.Identity.PID = 0 }, "process"},
		"an impossible process":       {func(t *Target) { t.Identity.PID = 1 << 30 }, "process"},
		"no start time":               {func(t *Target) { t.Identity.StartTicks = 0 }, "start time"},
		"no inode":                    {func(t *Target) { t.Identity.Inode = 0 }, "inode"},
		"another architecture":        {func(t *Target) { t.Identity.Arch = "mips" }, "architecture"},
		"a command in colour":         {func(t *Target) { t.Identity.Comm = "\x1b[2J" }, "command"},
		"a path not UTF-8":            {func(t *Target) { t.Identity.Path = "/\xff" }, "path"},
		"a path of 1 MiB":             {func(t *Target) { t.Identity.Path = strings.Repeat("/x", 1<<19) }, "path"},
		"no function":                 {func(t *Target) { t.Function.Name = "" }, "no name"},
		"a function without size":     {func(t *Target) { t.Function.Size = 0 }, "range"},
		"a function round the end":    {func(t *Target) { t.Function.Size = math.MaxUint64 }, "range"},
		"a negative line":             {func(t *Target) { t.Function.Line = -1 }, "line"},
		"a thousand inlined calls":    {func(t *Target) { t.Function.InlinedAt = make([]Place, 1000) }, "inlined"},
		"an inlined call in colour":   {func(t *Target) { t.Function.InlinedAt[0].File = "\x1b" }, "file"},
		"no site":                     {func(t *Target) { t.Sites = nil }, "0 sites"},
		"a hundred sites":             {func(t *Target) { t.Sites = make([]Site, 100) }, "100 sites"},
		"a site before the function":  {func(t *Target) { t.Sites[0].Address = 0xfff }, "outside of the function"},
		"a site behind the function":  {func(t *Target) { t.Sites[0].Address = 0x1100 }, "outside of the function"},
		"a site twice":                {func(t *Target) { t.Sites = append(t.Sites, t.Sites[0]) }, "twice"},
		"a site outside of the file":  {func(t *Target) { t.Sites[0].FileOffset = 8 << 20 }, "outside of the file"},
		"a site without instruction":  {func(t *Target) { t.Sites[0].Bytes = nil }, "instruction"},
		"a long instruction":          {func(t *Target) { t.Sites[0].Bytes = make([]byte, 16) }, "instruction"},
		"a site that is not mapped":   {func(t *Target) { t.Sites[0].RuntimeAddress = 0 }, "no address"},
		"a place of two lines":        {func(t *Target) { t.Sites[0].Where = "a\nb" }, "place"},
		"too many values":             {func(t *Target) { t.Values = make([]Value, 65) }, "65 values"},
		"a value without a path":      {email(func(v *Value) { v.Path = "" }), "no path"},
		"a value without names":       {email(func(v *Value) { v.Names = nil }), "no names"},
		"names that hide a secret":    {email(func(v *Value) { v.Path, v.Names = "c.password", []string{"c", "x"} }), `"password"`},
		"names in another order":      {email(func(v *Value) { v.Names = []string{"user", "c", "email"} }), `"user"`},
		"an unknown kind":             {email(func(v *Value) { v.Kind = "quux" }), "unknown kind"},
		"an unknown register":         {email(func(v *Value) { v.Data.Register = 17 }), "register 17"},
		"a negative register":         {email(func(v *Value) { v.Length.Register = -1 }), "register -1"},
		"a shift out of the register": {email(func(v *Value) { v.Data.Shift = 8 }), "shift"},
		"too many pointers":           {email(func(v *Value) { v.Data.Offsets = make([]int64, 17) }), "17 pointers"},
		"an offset beyond 32 bits":    {email(func(v *Value) { v.Data.Offsets[0] = 1 << 31 }), "32 bits"},
		"the largest offset":          {email(func(v *Value) { v.Data.Offsets[0] = 1<<31 - 1 }), ""},
		"an offset of the string":     {email(func(v *Value) { v.Offset = -1 << 40 }), "32 bits"},
		"a negative capacity":         {email(func(v *Value) { v.Capacity = -1 }), "capacity"},
		"a number of 3 bytes":         {qty(func(v *Value) { v.Size = 3 }), "3 bytes"},
		"a number of 0 bytes":         {qty(func(v *Value) { v.Size = 0 }), "0 bytes"},
		"a number across the end":     {qty(func(v *Value) { v.Data.Shift = 5 }), "from byte 5"},
		"a number at an offset":       {qty(func(v *Value) { v.Offset = 4 }), "at offset 4"},
		"a float of 2 bytes":          {qty(func(v *Value) { v.Kind, v.Size = KindFloat, 2 }), "2 bytes"},
		"a pointer of 4 bytes":        {qty(func(v *Value) { v.Kind = KindPointer }), "4 bytes"},
		"a missing number":            {qty(func(v *Value) { v.Missing, v.Data.Register = "optimized out", 99 }), ""},
		"a reason in colour":          {qty(func(v *Value) { v.Missing = "\x1b" }), "reason"},
		"a struct":                    {qty(func(v *Value) { v.Kind, v.Size = KindStruct, 480 }), ""},
		"a small goroutine number":    {func(t *Target) { t.GoroutineID.Size = 4 }, "8 bytes"},
		"a text for goroutine number": {func(t *Target) { t.GoroutineID.Kind = KindString }, "not an integer"},
		"no goroutine number":         {func(t *Target) { t.GoroutineID = nil }, ""},
		"a note in colour":            {func(t *Target) { t.Notes = []string{"\x1b[2J"} }, "note"},
		"a hundred notes":             {func(t *Target) { t.Notes = make([]string, 100) }, "100 notes"},
		"fewer processes than none":   {func(t *Target) { t.OtherProcesses = -1 }, "processes"},
	} {
		t.Run(what, func(t *testing.T) {
			tgt := good()
			c.change(tgt)
			err := tgt.Validate()
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("error %v does not say %q", err, c.says)
			case err != nil && len(err.Error()) > 1000:
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	arm := good()
	arm.Identity.Arch, arm.Values[0].Data.Register = "arm64", 31
	if err := arm.Validate(); err != nil {
		t.Errorf("sp of arm64: %v", err)
	}
}

// FuzzTarget: whatever an inspector sends is refused with a short sentence, or stays within all bounds.
func FuzzTarget(f *testing.F) {
	data, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"values":[{"path":"...","names":[""],"kind":"int","size":8}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tgt Target
		if json.Unmarshal(data, &tgt) != nil {
			return
		}
		if err := tgt.Validate(); err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, v := range tgt.Values {
			for _, l := range []Location{v.Data, v.Length} {
				if v.Missing == "" && (v.Kind == KindString || v.Kind == KindBytes) && (l.Register < 0 || l.Register > 31 || l.Shift < 0 || l.Shift > 7) {
					t.Errorf("%s is at %+v", v.Path, l)
				}
			}
		}
	})
}

// goodKernel is a function of the kernel.
func goodKernel() *Target {
	return &Target{
		Identity: Identity{Kernel: "6.12.48", Comm: "kernel", Path: "the kernel 6.12.48", Language: "c", Arch: "amd64"},
		Function: Function{Name: "do_sys_openat2", Signature: "int do_sys_openat2(int dfd, const char *filename, struct open_how *how)"},
		Sites:    []Site{{Symbol: "do_sys_openat2", Where: "entry"}},
		Values: []Value{
			{Path: "dfd", Names: []string{"dfd"}, TypeName: "int", Kind: KindInt, Size: 4, Data: Location{Register: 5}},
			{Path: "filename", Names: []string{"filename"}, TypeName: "const char *", Kind: KindCString, Data: Location{Register: 4}, User: true},
		},
	}
}

func TestValidateKernel(t *testing.T) {
	if err := goodKernel().Validate(); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Target)
		says   string
	}{
		"a process too":             {func(t *Target) { t.Identity.PID = 1 }, "kernel's and a process's"},
		"a file too":                {func(t *Target) { t.Identity.Inode = 1 }, "kernel's and a process's"},
		"another architecture":      {func(t *Target) { t.Identity.Arch = "" }, "architecture"},
		"a release in colour":       {func(t *Target) { t.Identity.Kernel = "\x1b[2J" }, "kernel"},
		"no site":                   {func(t *Target) { t.Sites = nil }, "0 sites"},
		"two sites":                 {func(t *Target) { t.Sites = append(t.Sites, t.Sites[0]) }, "2 sites"},
		"another function's site":   {func(t *Target) { t.Sites[0].Symbol = "commit_creds" }, "is not the function"},
		"a symbol of the compiler":  {func(t *Target) { t.Sites[0].Symbol, t.Function.Name = "a.isra.0", "a.isra.0" }, "is not the function"},
		"a symbol with an offset":   {func(t *Target) { t.Sites[0].Symbol, t.Function.Name = "a+4", "a+4" }, "is not the function"},
		"an address":                {func(t *Target) { t.Sites[0].Address = 0xffffffff81000000 }, "symbol and an address"},
		"an offset of a file":       {func(t *Target) { t.Sites[0].FileOffset = 1 }, "symbol and an address"},
		"a function with an extent": {func(t *Target) { t.Function.Size = 1 }, "no address here"},
		"a goroutine":               {func(t *Target) { t.GoroutineID = &Value{Path: "g", Names: []string{"g"}, Kind: KindUint, Size: 8} }, "goroutine"},
		"an order of text":          {func(t *Target) { t.Values[1].BigEndian = true }, "order of bytes"},
		"an unknown register":       {func(t *Target) { t.Values[0].Data.Register = 17 }, "register 17"},
	} {
		tgt := goodKernel()
		c.change(tgt)
		if err := tgt.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v does not say %q", what, err, c.says)
		}
	}
	process := good()
	process.Values[0].User = true
	if err := process.Validate(); err == nil {
		t.Error("a process with memory that is another's")
	}
	process = good()
	process.Sites[0].Symbol = "f"
	if err := process.Validate(); err == nil {
		t.Error("a process probed by name")
	}
}

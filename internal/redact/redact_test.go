// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseAction(t *testing.T) {
	for _, text := range []string{"keep", "drop", "length", "digest", "suffix:4", "prefix:1", "suffix:64", "bucket", "bucket:100000000", "detect:all", "detect:card,email", "allow:ipv4"} {
		a, err := ParseAction(text)
		if err != nil || a.String() != text {
			t.Errorf("ParseAction(%q) = %v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "Keep", "keep:1", "drop:", "suffix", "suffix:", "suffix:0", "suffix:04", "suffix:65", "suffix:-1", "suffix:+4", "prefix:4x", "hide", "prefix:4:4", "bucket:", "bucket:0", "bucket:01", "bucket:2147483648", "detect", "detect:", "detect:none", "allow:all", "allow"} {
		if a, err := ParseAction(text); err == nil {
			t.Errorf("ParseAction(%q) = %v", text, a)
		}
	}
	if got := (Action{}).String(); got != "drop" {
		t.Errorf("the zero action is %s", got)
	}
}

func actions() *rapid.Generator[Action] {
	return rapid.Custom(func(t *rapid.T) Action {
		a := Action{Kind: Kind(rapid.IntRange(int(Keep), int(Drop)).Draw(t, "kind"))}
		if a.Kind == Prefix || a.Kind == Suffix {
			a.N = rapid.IntRange(1, MaxPart).Draw(t, "n")
		}
		if a.Kind == Bucket {
			a.N = rapid.IntRange(0, MaxBucket).Draw(t, "least")
		}
		if a.Kind == Detect || a.Kind == Allow {
			a.Sets = rapid.SampledFrom([]string{"card", "email", "card,email,phone"}).Draw(t, "sets")
		}
		return a
	})
}

// TestStricter: the strictest of several actions does not depend on the order in which they are met, and never tells more
// than one of them.
func TestStricter(t *testing.T) {
	parse := func(text string) Action {
		a, err := ParseAction(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range [][3]string{
		{"keep", "keep", "keep"}, {"keep", "suffix:4", "suffix:4"}, {"suffix:4", "suffix:2", "suffix:2"}, {"prefix:6", "suffix:4", "digest"},
		{"suffix:4", "digest", "digest"}, {"digest", "length", "length"}, {"length", "drop", "drop"}, {"keep", "drop", "drop"},
		{"keep", "detect:all", "detect:all"}, {"detect:email", "detect:card", "detect:card,email"}, {"detect:email", "detect:all", "detect:all"},
		{"detect:all", "suffix:4", "digest"}, {"detect:card", "length", "length"}, {"bucket", "bucket:5", "bucket"}, {"bucket:9", "bucket:5", "bucket:5"},
		{"allow:ipv4", "allow:ipv4", "allow:ipv4"}, {"allow:ipv4", "allow:ipv6", "digest"}, {"detect:all", "allow:ipv4", "digest"}, {"keep", "bucket", "bucket"},
	} {
		if got := Stricter(parse(c[0]), parse(c[1])); got != parse(c[2]) {
			t.Errorf("Stricter(%s, %s) = %s; want %s", c[0], c[1], got, c[2])
		}
	}
	if got := Stricter(Action{}, Action{Kind: Keep}); got.Kind != Drop {
		t.Errorf("no action and keep make %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := actions().Draw(t, "a"), actions().Draw(t, "b"), actions().Draw(t, "c")
		if Stricter(a, a) != a {
			t.Errorf("Stricter(%s, itself) = %s", a, Stricter(a, a))
		}
		if Stricter(a, b) != Stricter(b, a) {
			t.Errorf("Stricter(%s, %s) = %s, and the other way round %s", a, b, Stricter(a, b), Stricter(b, a))
		}
		if left, right := Stricter(Stricter(a, b), c), Stricter(a, Stricter(b, c)); left != right {
			t.Errorf("(%s, %s), %s make %s; %s, (%s, %s) make %s", a, b, c, left, a, b, c, right)
		}
		if s := Stricter(a, b); Stricter(s, a) != s || s.Kind < a.Kind {
			t.Errorf("Stricter(%s, %s) = %s, which tells more than %s", a, b, s, a)
		}
	})
}

func TestActionForKind(t *testing.T) {
	for _, c := range [][3]string{
		{"suffix:4", "string", "suffix:4"}, {"suffix:4", "cstring", "suffix:4"}, {"prefix:2", "bytes", "prefix:2"}, {"length", "string", "length"},
		{"suffix:4", "int", "drop"}, {"prefix:2", "pointer", "drop"}, {"length", "uint", "drop"}, {"digest", "int", "digest"}, {"keep", "float", "keep"},
		{"length", "length", "drop"}, {"drop", "string", "drop"},
		{"detect:all", "bytes", "detect:all"}, {"detect:card", "int", "drop"}, {"bucket", "int", "bucket"}, {"bucket", "string", "drop"}, {"allow:ipv4", "cstring", "allow:ipv4"},
		{"allow:ipv4", "uint", "drop"}, {"bucket:7", "length", "bucket:7"}, {"bucket", "float", "drop"},
	} {
		a, err := ParseAction(c[0])
		if err != nil {
			t.Fatal(err)
		}
		if got := a.For(c[1]).String(); got != c[2] {
			t.Errorf("%s for a value of kind %s is %s; want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestSplitWords(t *testing.T) {
	for name, want := range map[string]string{
		"userPassword": "user password", "user_password": "user password", "USER-PASSWORD": "user password", "APIKey": "api key",
		"cvv2": "cvv2", "HTTPServerID": "http server id", "x": "x", "": "", "__init__": "init", "straßeNr": "straße nr", "v1Token": "v1 token",
	} {
		if got := strings.Join(splitWords(name), " "); got != want {
			t.Errorf("splitWords(%q) = %q; want %q", name, got, want)
		}
	}
}

func TestVocabulary(t *testing.T) {
	for _, name := range []string{
		"password", "Password", "userPassword", "user_passwords", "userpassword", "PASSWD", "secret", "ClientSecret", "secretKey", "token",
		"accessToken", "authtoken", "refresh_tokens", "Authorization", "authorizationHeader", "cookie", "sessionCookie", "cvv", "CVV2", "cvc",
		"apiKey", "api_key", "APIKey", "privateKey", "credentials", "jwt", "passphrase", "sessionID", "X-CSRF-Token", "pwd", "bearer",
	} {
		if !secrets.means(name) {
			t.Errorf("%q does not mean a secret", name)
		}
	}
	for _, name := range []string{
		"pan", "card", "cardNumber", "creditcard", "account", "accountNo", "ssn", "pin", "userPIN", "otp", "iban", "phone", "phone_number",
		"mobilePhone", "dob", "dateOfBirth", "passport",
	} {
		if !identifiers.means(name) || secrets.means(name) {
			t.Errorf("%q does not mean an identifier", name)
		}
	}
	for _, name := range []string{
		"qty", "total", "email", "tokenizer", "tokenize", "company", "expand", "cardinality", "discard", "accounting", "spin", "pinned", "pane",
		"key", "keys", "id", "items", "path", "compass", "author", "passed", "Limit", "sku", "intel", "", "_",
	} {
		if secrets.means(name) || identifiers.means(name) {
			t.Errorf("%q means a secret or an identifier", name)
		}
	}
}

func TestTypeWords(t *testing.T) {
	for name, want := range map[string]string{
		"string": "string", "auth.Token": "Token", "*auth.Token": "Token", "[]*auth.Token": "Token", "[4]auth.Token": "Token",
		"github.com/x/auth.Secret": "Secret", "opt.Value[auth.Token]": "Value", "map[string]auth.Token": "Token", "const char *": "", "struct secret": "secret",
	} {
		if got := typeWords(name); got != want {
			t.Errorf("typeWords(%q) = %q; want %q", name, got, want)
		}
	}
}

func mustParse(t *testing.T, yaml string) []Rule {
	t.Helper()
	p, err := ParsePolicy([]byte("version: 1\nrules:\n" + yaml))
	if err != nil {
		t.Fatal(err)
	}
	return p.Rules
}

func field(path, kind, typeName string) Field {
	f := Field{Path: path, Names: strings.Split(path, "."), Kind: kind, TypeName: typeName, Function: "main.(*Cart).Checkout"}
	if strings.HasSuffix(typeName, "64") || kind == "length" {
		f.Size = 8
	}
	return f
}

func TestDecide(t *testing.T) {
	owner := mustParse(t, `
  - {id: payments/card, name: card, action: "suffix:4"}
  - {id: payments/brand, path: "*.card.brand", action: keep}
  - {id: weak/password, name: password, action: keep}
  - {id: weak/everything, path: "order.*", action: keep}
  - {id: sku, name: SKU, function: "main.*", action: keep}
  - {id: elsewhere, name: city, function: "other.*", action: keep}
  - {id: mail, type: "mail.Address", action: "prefix:3"}
  - {id: mail2, name: "*mail", action: length}
  - {id: quantity, name: qty, action: "suffix:2"}
  - {id: customer, name: customer, action: digest}
  - {id: pointer, name: next, action: keep}
`)
	set, err := Shipped().WithOwner(owner)
	if err != nil {
		t.Fatal(err)
	}
	set, err = set.WithCompulsory(mustParse(t, `
  - {id: node/note, name: note, action: length}
  - {id: node/total, name: total, action: keep}
  - {id: node/sku, path: "hidden.*", action: drop}
`))
	if err != nil {
		t.Fatal(err)
	}
	if set, err = set.WithCompulsory(mustParse(t, "  - {id: node/memo, name: memo, action: length}\n")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what         string
		field        Field
		action, rule string
	}{
		{"an integer nobody speaks of", field("total", "int", "int32"), "keep", RuleDefaultScalar},
		{"a wide one", field("orderId", "uint", "uint64"), "bucket:100000000", RuleDefaultInteger},
		{"a time", Field{Path: "t", Names: []string{"t"}, Kind: "int", Size: 8, TypeName: "time.Duration"}, "keep", RuleDefaultScalar},
		{"an amount", Field{Path: "t", Names: []string{"t"}, Kind: "int", Size: 8, TypeName: "shop.PriceInCents"}, "keep", RuleDefaultScalar},
		{"a time of C's", Field{Path: "t", Names: []string{"t"}, Kind: "int", Size: 8, TypeName: "time_t"}, "keep", RuleDefaultScalar},
		{"a name that means an amount says nothing", field("price", "int", "int64"), "bucket:100000000", RuleDefaultInteger},
		{"a boolean", field("ok", "bool", "bool"), "keep", RuleDefaultScalar},
		{"a float", field("x", "float", "float64"), "keep", RuleDefaultScalar},
		{"a slice's length", field("c.items", "length", "[]Item"), "keep", RuleDefaultScalar},
		{"a string", field("c.user.name", "string", "string"), "detect:all", RuleDefaultText},
		{"a C string", field("name", "cstring", "char *"), "detect:all", RuleDefaultText},
		{"bytes", field("body", "bytes", "[]byte"), "detect:all", RuleDefaultText},
		{"a pointer", field("c.prev", "pointer", "*T"), "drop", RuleDefaultPointer},
		{"a pointer that is kept", field("c.next", "pointer", "*T"), "keep", "pointer"},
		{"a struct", field("c", "struct", "Cart"), "digest", RuleDefaultOther},
		{"an unknown kind", field("c", "quux", "Cart"), "digest", RuleDefaultOther},
		{"a secret's name", field("user.Password", "string", "string"), "drop", RuleSecretName},
		{"a rule cannot lower it", field("password", "string", "string"), "drop", RuleSecretName},
		{"something in a secret", field("secrets.database.host", "string", "string"), "drop", RuleSecretName},
		{"an integer with a secret's name", field("cvv", "int", "int"), "drop", RuleSecretName},
		{"a secret's type", field("x", "string", "auth.Token"), "drop", RuleSecretName},
		{"an identifier", field("pin", "int", "int"), "drop", RuleIdentifierName},
		{"a type that means an identifier", field("x", "string", "bank.IBAN"), "drop", RuleIdentifierName},
		{"an identifier that the owner speaks of", field("card", "string", "string"), "suffix:4", "payments/card"},
		{"in other letters", field("c.Card", "string", "string"), "suffix:4", "payments/card"},
		{"something in it", field("card.pin", "string", "string"), "drop", RuleIdentifierName},
		{"something in it that was kept", field("c.card.brand", "string", "string"), "suffix:4", "payments/card"},
		{"a rule for all does not mean an identifier", field("order.iban", "string", "string"), "drop", RuleIdentifierName},
		{"nor a secret", field("order.token", "string", "string"), "drop", RuleSecretName},
		{"but the rest", field("order.text", "string", "string"), "keep", "weak/everything"},
		{"a rule for this function", field("sku", "string", "string"), "keep", "sku"},
		{"a rule for another function", field("city", "string", "string"), "detect:all", RuleDefaultText},
		{"the stricter of two rules", field("mail", "string", "mail.Address"), "length", "mail2"},
		{"a rule by type", field("to", "string", "mail.Address"), "prefix:3", "mail"},
		{"an action that means nothing for the kind", field("qty", "int", "int"), "drop", "quantity"},
		{"a rule about what lies around", field("customer.id", "int", "int"), "digest", "customer"},
		{"a compulsory rule", field("note", "string", "string"), "length", "node/note"},
		{"another's compulsory rule", field("memo", "string", "string"), "length", "node/memo"},
		{"a compulsory rule weakens nothing", field("total", "string", "string"), "detect:all", RuleDefaultText},
		{"a compulsory rule before the owner's", field("hidden.sku", "string", "string"), "drop", "node/sku"},
	} {
		d := set.Decide(c.field)
		if d.Action.String() != c.action || d.Rule != c.rule {
			t.Errorf("%s: %s %s is %s by %s (%s); want %s by %s", c.what, c.field.Kind, c.field.Path, d.Action, d.Rule, d.Note, c.action, c.rule)
		}
		if d.Note != "" && d.Rule != "quantity" {
			t.Errorf("%s: a note %q", c.what, d.Note)
		}
	}
	if d := set.Decide(field("qty", "int", "int")); !strings.Contains(d.Note, "suffix:2 means nothing") {
		t.Errorf("nothing says why qty is dropped: %q", d.Note)
	}
}

func TestDecisionWith(t *testing.T) {
	d := Decision{Action: Action{Kind: Suffix, N: 4}, Rule: "a"}
	if got := d.With(Action{Kind: Keep}, RuleRequest); got != d {
		t.Errorf("a request for keep makes of %v %v", d, got)
	}
	if got := d.With(Action{Kind: Drop}, RuleRequest); got.Action.Kind != Drop || got.Rule != RuleRequest {
		t.Errorf("a request for drop makes of %v %v", d, got)
	}
	if got := d.With(Action{Kind: Prefix, N: 4}, RuleRequest); got.Action.Kind != Digest || !strings.Contains(got.Note, "a and request") {
		t.Errorf("a request for a prefix makes of %v %v", d, got)
	}
}

// TestNothingLowersTheFloor draws owners' rules, and asks about a secret.
func TestNothingLowersTheFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []Rule
		pattern := rapid.SampledFrom([]string{"", "*", "password", "user.*", "user.password", "*word", "string", "main.*"})
		for i := range rapid.IntRange(0, 6).Draw(t, "rules") {
			r := Rule{ID: "r/" + string(rune('a'+i)), Action: actions().Draw(t, "action")}
			r.Match = Match{Name: pattern.Draw(t, "name"), Path: pattern.Draw(t, "path"), Type: pattern.Draw(t, "type"), Function: pattern.Draw(t, "function")}
			if r.Match != (Match{}) {
				rules = append(rules, r)
			}
		}
		set, err := Shipped().WithOwner(rules)
		if err != nil {
			t.Fatal(err)
		}
		if d := set.Decide(field("user.password", "string", "string")); d.Action.Kind != Drop || d.Rule != RuleSecretName {
			t.Errorf("a password is %s by %s under %+v", d.Action, d.Rule, rules)
		}
		// The same rules as compulsory ones never make anything weaker.
		f := field("user.name", "string", "string")
		strict, err := Shipped().WithCompulsory(rules)
		if err != nil {
			t.Fatal(err)
		}
		before, after := Shipped().Decide(f).Action, strict.Decide(f).Action
		if Stricter(before, after) != after {
			t.Errorf("compulsory rules made %s of %s: %+v", after, before, rules)
		}
	})
}

func TestRulesetJSON(t *testing.T) {
	set, err := Shipped().WithOwner(mustParse(t, `  - {name: card, action: "suffix:4"}`))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var read Ruleset
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	if read.Digest() != set.Digest() || read.Digest() == Shipped().Digest() {
		t.Errorf("the digest of %s is not that of what was written", data)
	}
	for _, wrong := range []string{
		`{"owner":[{"id":"a","match":{"name":"x"},"action":"hide"}]}`, `{"owner":[{"id":"a","match":{},"action":"keep"}]}`,
		`{"owner":[{"id":"names/secret","match":{"name":"x"},"action":"keep"}]}`, `{"owner":[{"id":"a","match":{"name":"x"}}]}`, `{"shipped":[]}`, `[]`,
		`{"compulsory":[{"id":"A B","match":{"name":"x"},"action":"keep"}]}`,
		`{"owner":[{"id":"a","match":{"name":"` + strings.Repeat("x", 600) + `"},"action":"keep"}]}`,
	} {
		if err := json.Unmarshal([]byte(wrong), &read); err == nil {
			t.Errorf("%.80s is a ruleset", wrong)
		}
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	for what, c := range map[string]struct{ yaml, says string }{
		"nothing":                {"", "empty"},
		"not YAML":               {"version: [", "line 1"},
		"no version":             {"rules: []", "version is 0"},
		"a later version":        {"version: 2\nrules: []", "version is 2"},
		"an unknown key":         {"version: 1\nruels: []", `line 2: unknown key "ruels"`},
		"an unknown rule key":    {"version: 1\nrules:\n- {name: x, acton: keep}", `line 3: unknown key "acton"`},
		"a key twice":            {"version: 1\nrules:\n- {name: x, name: y, action: keep}", "line 3: "},
		"no action":              {"version: 1\nrules:\n- {name: x}", "line 3: no action"},
		"a wrong action":         {"version: 1\nrules:\n\n- {name: x, action: hide}", "line 4: unknown action"},
		"no field":               {"version: 1\nrules:\n- {action: keep}", "names no field"},
		"an empty name":          {"version: 1\nrules:\n- {name: '', action: keep}", "line 3: name"},
		"a list for a name":      {"version: 1\nrules:\n- {name: [a], action: keep}", "line 3: name"},
		"a text for a rule":      {"version: 1\nrules:\n- keep", "line 3: want a rule"},
		"a reserved id":          {"version: 1\nrules:\n- {id: default/x, name: x, action: keep}", "built in"},
		"an id twice":            {"version: 1\nrules:\n- {id: x, name: x, action: keep}\n- {id: x, name: y, action: keep}", "given twice"},
		"two documents":          {"version: 1\n---\nversion: 1", "more than one document"},
		"an unknown profile":     {"version: 1\nprofile: lax", `unknown profile "lax"`},
		"an environment without": {"version: 1\nenvironments: {prod: {}}", "no profile"},
		"an environment's name":  {"version: 1\nenvironments: {PROD: {profile: strict}}", "lower-case"},
		"a set without a slash":  {"version: 1\nsets: {order: x}", "line 2: the set \"order\": want a name with a slash"},
		"a set twice":            {"version: 1\nsets:\n  a/b: x\n  a/b: y", "line 4"},
		"a set that is a list":   {"version: 1\nsets:\n  a/b: [x]", "line 3: the set a/b: want a regular"},
		"sets in a list":         {"version: 1\nsets: [a/b]", "line 2: want sets"},
		"a set's pattern":        {"version: 1\nsets:\n  a/b: '(x'", "line 3: the set a/b: pattern \"(x\": error parsing regexp: missing closing )"},
		"what no table has":      {"version: 1\nsets:\n  a/b: 'x(?=y)'", "line 3: the set a/b"},
		"an undefined set":       {"version: 1\nrules:\n- {name: x, action: 'detect:a/b'}", "line 3: nothing defines the set a/b"},
		"an unknown set":         {"version: 1\nrules:\n- {name: x, action: 'detect:cards'}", "line 3: action \"detect:cards\": unknown set \"cards\""},
		"too many rules":         {"version: 1\nrules:\n" + strings.Repeat("- {name: x, action: keep}\n", MaxRules+1), "at most 1000"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := ParsePolicy([]byte(c.yaml))
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "redaction rules: ") {
				t.Errorf("error %v; want one that says %q", err, c.says)
			}
		})
	}
}

// FuzzParsePolicy: what is accepted is bounded, can be carried in JSON, and lowers no floor.
func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: 1\nrules:\n  - {id: payments/card, name: card, action: \"suffix:4\"}\n  - {path: \"*.sku\", function: \"main.*\", action: keep}\n"))
	f.Add([]byte("version: 1\nrules: [{name: &a x, action: keep}, *a]"))
	f.Add([]byte("version: 1\nprofile: strict\nenvironments: {dev: {profile: default}}\nsets: {a/b: 'x+'}\nrules: [{name: x, workload: unit/x, executable: /bin/x, action: \"detect:all,a/b\"}]"))
	f.Add([]byte("version: 1\nrules: [{<<: {name: x}, action: keep}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		policy, err := ParsePolicy(data)
		if err != nil {
			if strings.Contains(err.Error(), "redact.") {
				t.Errorf("an error names a type of ours: %v", err)
			}
			return
		}
		set, err := Shipped().WithOwnerPolicy(policy)
		if err != nil {
			t.Fatalf("parsed, and then refused: %v", err)
		}
		text, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		var read Ruleset
		if err := json.Unmarshal(text, &read); err != nil || read.Digest() != set.Digest() {
			t.Errorf("%s is read as something else: %v", text, err)
		}
		if d := read.Decide(field("user.password", "string", "string")); d.Action.Kind != Drop {
			t.Errorf("a password is %s", d.Action)
		}
	})
}

// TestRulesSeeTheWholeWay: a rule by path, name or type speaks of a field whichever of its paths was asked for.
func TestRulesSeeTheWholeWay(t *testing.T) {
	way := Field{
		Names: []string{"l", "Meta", "Inner", "Low"}, Types: []string{"*main.Login", "main.Meta", "*main.Box", "uint64"}, Embedded: []int{1, 2}, TypeName: "uint64", Kind: "uint",
	}
	paths := []string{"l.Low", "l.Meta.Low", "l.Inner.Low", "l.Meta.Inner.Low"}
	for _, m := range []Match{
		{Path: "l.Low"}, {Path: "l.Meta.Low"}, {Path: "l.Meta.Inner.Low"}, {Path: "l.meta"}, {Path: "l.Meta.*"}, {Path: "l.Inner"}, {Name: "Inner"}, {Name: "low"}, {Type: "main.Box"},
		{Type: "*main.Box"}, {Type: "main.Login", Name: "l"}, {Type: "uint64", Path: "l.Inner.Low"},
	} {
		rules, err := Shipped().WithCompulsory([]Rule{{ID: "test/way", Match: m, Action: Action{Kind: Drop}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			way.Path = path
			if d := rules.Decide(way); d.Rule != "test/way" {
				t.Errorf("%+v does not speak of %s: it is %s by %s", m, path, d.Action, d.Rule)
			}
		}
	}
	for _, m := range []Match{{Path: "l.Other"}, {Name: "login"}, {Type: "main.Box", Name: "Meta"}, {Type: "Box"}, {Path: "Meta.Low"}} {
		rules, err := Shipped().WithCompulsory([]Rule{{ID: "test/way", Match: m, Action: Action{Kind: Digest}}})
		if err != nil {
			t.Fatal(err)
		}
		if d := rules.Decide(way); d.Rule == "test/way" {
			t.Errorf("%+v speaks of %s", m, way.Path)
		}
	}
}

func TestTypesOnTheWay(t *testing.T) {
	for typeName, want := range map[string]string{
		"*main.Password": RuleSecretName, "main.APIKey": RuleSecretName, "auth.SessionTokens": RuleSecretName, "[]main.Credentials": RuleSecretName, "main.Card": RuleIdentifierName,
		"main.PasswordStore": RuleDefaultScalar, "*limit.TokenBucket": RuleDefaultScalar, "main.CardReader": RuleDefaultScalar,
	} {
		d := Shipped().Decide(Field{Path: "x.Low", Names: []string{"x", "Low"}, Types: []string{typeName, "uint64"}, TypeName: "uint64", Kind: "uint"})
		if d.Rule != want {
			t.Errorf("a field of a %s is decided by %s; want %s", typeName, d.Rule, want)
		}
	}
}

func TestBucketed(t *testing.T) {
	all, large := Action{Kind: Bucket}, Action{Kind: Bucket, N: 100}
	for _, c := range []struct{ magnitude, all, large uint64 }{
		{0, 0, 0}, {1, 1, 1}, {3, 2, 3}, {99, 64, 99}, {100, 64, 64}, {128, 128, 128}, {1<<63 + 5, 1 << 63, 1 << 63},
	} {
		if got := all.Bucketed(c.magnitude); got != c.all {
			t.Errorf("the bucket of %d is %d; want %d", c.magnitude, got, c.all)
		}
		if got := large.Bucketed(c.magnitude); got != c.large {
			t.Errorf("from 100 on, the bucket of %d is %d; want %d", c.magnitude, got, c.large)
		}
	}
}

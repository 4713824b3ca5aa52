// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// Pieces of patterns.
const (
	// before stands before a number: anything but another digit, or the number would be part of a longer one.
	before = `(?:\b|[A-Za-z_])`

	// beforeWord stands before letters and digits: neither may be there.
	beforeWord = `(?:\b|_)`

	octet = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	dots4 = octet + `(?:\.` + octet + `){3}`

	digits4 = `[0-9]{1,3}(?:\.[0-9]{1,3}){3}`

	// hex4 is a group of an IPv6 address; lead is the first one, which in every range that is handed out has a digit in it, but for fc00::/7 and
	// multicast. So dead::beef, which is more often a name in a program than an address, is none.
	hex4 = `[0-9A-Fa-f]{1,4}`
	lead = `(?:[0-9][0-9A-Fa-f]{0,3}|[A-Fa-f][0-9][0-9A-Fa-f]{0,2}|[A-Fa-f]{2}[0-9][0-9A-Fa-f]?|[A-Fa-f]{3}[0-9]|[Ff][CDFcdf][A-Fa-f]{2})`

	// is stands between a name and its value, as JSON, YAML, URLs, Go and many configurations write it, quoted or not.
	is = `\\*["']?[ \t]?[=:][ \t]?`

	// value is what stands there: quoted, with what the quotes hold, or up to what ends such a value. In a text that is quoted itself its quotes
	// have backslashes; it ends at the one that something of JSON follows, so that it cannot end at a quote inside of it.
	value = `(?:"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|\\+"(?:[^"\n]|"[^,}\]\n])*"?|[^\s;,&"'\\)}\]]+)`

	// header is what a header says: in a log or a dump of many up to the quote or bracket that ends it, else the whole line.
	header = `(?:[\[{]*\\*["'\[{][^\r\n"'\]}]+["']?|[^\r\n"'\\\[{][^\r\n]*)`
)

// fold matches a word in whichever case its letters are. (?i) would let in letters that are not ASCII, and each costs states.
func fold(word string) string {
	var b strings.Builder
	for _, r := range word {
		if upper := unicode.ToUpper(r); upper != r {
			b.WriteString("[" + string(upper) + string(r) + "]")
		} else {
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return b.String()
}

var sets = []*Set{
	{
		Name: "card", About: "payment card numbers that pass the Luhn check: 13 to 19 digits, together or in the groups that are on cards, with spaces or dashes between",
		Source:  "ISO/IEC 7812-1, annex B; the networks' ranges",
		hint:    `[0-9](?:[ -]?[0-9]){12}`,
		pattern: before + `(?:[2-6][0-9]|8[12]|97)[0-9]{2}(?:[0-9]{9,15}|(?:[ -]?[0-9]{4}){3}(?:[ -]?[0-9]{3})?|[ -]?[0-9]{6}[ -]?[0-9]{4,5})`, apart: dfa.FromDigits, check: dfa.Luhn,
	},
	{
		Name: "email", About: "e-mail addresses, with letters of any script, and with %40 for @", Source: "RFC 5321, section 4.1.2, without quoted local parts; RFC 6531",
		hint:    `@|%40`,
		pattern: `[A-Za-z0-9.!#$%&'*+/=?^_{|}~\x{80}-\x{10ffff}-]+(?:@|%40)[A-Za-z0-9\x{80}-\x{10ffff}-]+(?:\.[A-Za-z0-9\x{80}-\x{10ffff}-]+)+`,
	},
	{
		Name: "jwt", About: "JSON web tokens, signed and encrypted", Source: "RFC 7515, section 3.1; RFC 7516, section 3.1",
		hint:    `eyj`,
		pattern: `eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)+`,
	},
	{
		Name: "credentials", About: "bearer and basic credentials, behind their scheme", Source: "RFC 6750, section 2.1; RFC 7617",
		hint:    `(?:bearer|basic) `,
		pattern: `(?:` + fold("bearer") + `|` + fold("basic") + `) +(?:[a-z]*[A-Z0-9._~+/=-][A-Za-z0-9._~+/=-]*[A-Z0-9_~+/=][A-Za-z0-9._~+/=-]*|[A-Za-z0-9._~+/-]{16,}=*|[A-Za-z0-9+/]{2,}==?)`,
	},
	{
		Name: "cloudkey", About: "keys of cloud and code providers, which begin with the provider's letters", Source: "AWS, Google, GitHub, GitLab, Slack, Stripe, OpenAI, SendGrid, npm, HashiCorp and DigitalOcean on the prefixes of their keys",
		hint: `a(?:ki|si|ro|id|gp|np|ip|bi|cc)a[a-z0-9]|aiza|gocs|ya29|gh[a-z]_|github_|glpat-|xox[a-z]-|xapp-|[rsp]k_[lt]|whsec_|sk-|sg\.|npm_|pypi-|hv[bsr]\.|do[opr]_v1`,
		pattern: `A(?:KI|SI|RO|ID|GP|NP|IP|BI|CC)A[A-Z0-9]{16,}|(?:AIza|GOCSPX-|ya29\.|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|xapp-|[rsp]k_(?:live|test)_|whsec_|sk-|SG\.|npm_|pypi-|hv[bsr]\.|do[opr]_v1_)` +
			`[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]{10,})*`,
	},
	{
		Name: "privatekey", About: "private keys in PEM, up to the end of the block, or of the value if it does not end there", Source: "RFC 7468; RFC 9580, section 6.2",
		hint:    `-----begin`,
		pattern: `-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:-{0,4}[^-])*(?:-----END [A-Z0-9 ]*-----)?`,
	},
	{
		Name: "iban", About: "international bank account numbers that pass their check, in capitals, together or in groups of four", Source: "ISO 13616-1; the countries of SWIFT's IBAN registry",
		hint: `[a-z][0-9]{2}[ -]?[a-z0-9]`,
		pattern: beforeWord + `(?:A[DELOTZ]|B[AEGHIRY]|C[HRYZ]|D[EJKO]|E[EGS]|F[IKOR]|G[BEILRT]|H[NRU]|I[ELQRST]|JO|K[WZ]|L[BCITUVY]|M[CDEKNRTU]|N[ILO]|OM|P[KLST]|QA|R[OSU]|S[ACDEIKMOTV]|T[LNR]|U[AK]|V[AG]|XK|YE)` +
			`[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?`, apart: dfa.FromAlnum, check: dfa.Mod97,
	},
	{
		Name: "nationalid",
		About: "national identifiers: US SSN and ITIN, CA SIN with dashes, UK NINO, DE tax number in groups, FR INSEE, ES DNI and NIE, IT codice fiscale, BR CPF and CNPJ, CH AHV, BE number with its signs, " +
			"IN PAN, SG NRIC, MX CURP",
		Source: "the issuing authorities' formats, less the letters that some leave out",
		hint:   `[0-9]{7}|[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[a-d]|[0-9]{2}[a-z][0-9]{2}[a-z]|[a-z][0-9]{4}[a-z]|[0-9]{6}[a-z]{2}|[0-9][ab] ?[0-9]{3} ?[0-9]|[0-9](?:[ ()./-]{0,2}[0-9]){8}`,
		pattern: beforeWord + `(?:[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3}-[0-9]{3}-[0-9]{3}|[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]|[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}|` +
			`[12] ?[0-9]{2} ?[01][0-9] ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}|[0-9A-Z][0-9]{7}-?[A-Z]|[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z]|` +
			`[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2}|[A-Z]{5}[0-9]{4}[A-Z]|756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}|` +
			`[0-9]{2}\.[01][0-9]\.[0-3][0-9]-[0-9]{3}\.[0-9]{2}|[A-Z]{4}[0-9]{6}[A-Z]{6}[0-9A-Z][0-9])`,
		apart: dfa.FromAlnum,
	},
	{
		Name: "phone", About: "telephone numbers in international form, or in groups as North America and many countries with a leading 0 write them", Source: "ITU-T E.164 and E.123; NANP",
		hint: `\+[1-9]|%2b[1-9]|[0-9](?:[ ()./-]{0,2}[0-9]){8}`,
		pattern: `\+[1-9](?:[ ().-]{0,2}[0-9]){7,14}|%2[Bb][1-9][0-9]{7,14}|\b00[1-9][0-9]?[ ]?[1-9](?:[ ()/-]{0,2}[0-9]){6,11}|` +
			`(?:\b|_|\()[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}|(?:\b|_|\()0[1-9][0-9]{1,3}\)?[ -][0-9]{3,4}[ -]?[0-9]{3,4}|(?:\b|_)0[1-9](?:[ .-][0-9]{2}){4}|(?:\b|_)0[1-9][0-9]{8,9}`,
		apart: dfa.FromAlnum,
	},
	{
		Name: "ipv4", About: "IPv4 addresses", Source: "RFC 791; dotted decimal",
		hint:    `[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]`,
		pattern: before + dots4, apart: dfa.FromDigits,
	},
	{
		Name: "ipv6", About: "IPv6 addresses, also with an IPv4 address in them", Source: "RFC 4291, section 2.2; RFC 5952",
		hint: `::|(?::[0-9a-f]{1,4}){4}:`,
		pattern: beforeWord + `(?:` + hex4 + `(?::` + hex4 + `){7}|` + lead + `(?::` + hex4 + `)*::(?:(?:` + hex4 + `:)*(?:` + hex4 + `|` + digits4 + `))?|(?:0{1,4}:){5}(?:0{1,4}|[Ff]{4}):` + digits4 + `)|` +
			`(?:\B|_)::(?:` + hex4 + `:)*(?:[0-9][0-9A-Fa-f]{0,3}|[A-Fa-f]{1,3}[0-9][0-9A-Fa-f]{0,2}|` + digits4 + `)`,
		apart: dfa.FromAlnum,
	},
	{
		Name: "urlsecret", About: "URLs with a user's name or password, database connection strings among them", Source: "RFC 3986, section 3.2.1",
		hint:    `://|:\\/|@(?:tcp|unix)`,
		pattern: `[A-Za-z][A-Za-z0-9+.-]*(?:://|:\\/\\/)[^\s/?#@"'<>]*@[^\s"'<>]*|[A-Za-z0-9_.-]+:[^\s/@"'<>:]+@(?:tcp|unix)\([^\s"'<>)]*\)/[^\s"'<>]*`,
	},
	{
		Name: "dsn", About: "passwords, secrets and access keys behind their name, as connection strings, JSON and configurations have them", Source: "the drivers' documents: libpq, ADO.NET, JDBC, Azure Storage, AWS",
		hint: `passw|pwd|passph|secret|api_?key|access_?(?:key|tok)|unt_?key|(?:sh|ion|ty)_?token`,
		pattern: `(?:` + fold("passw") + `(?:` + fold("ord") + `|[Dd])|` + fold("pwd") + `|` + fold("passphrase") + `|` + fold("secret") + `(?:_?` + fold("access") + `)?(?:_?` + fold("key") + `)?|(?:` + fold("api") + `|` + fold("access") + `|` + fold("account") + `)_?` + fold("key") + `|(?:` +
			fold("access") + `|` + fold("refresh") + `|` + fold("session") + `|` + fold("security") + `)_?` + fold("token") + `)` + is + value,
	},
	{
		Name: "session", About: "session cookies by their frameworks' names, and all that the headers Cookie, Set-Cookie and Authorization say", Source: "RFC 6265; RFC 9110, section 11.6.2; the frameworks' documents",
		hint: `sess(?:ion)?(?:[_-]?id)?(?:=|\\*["'])|sid(?:=|\\*["'])|csrf_?t|xsrf-|\.aspx|aspnet|cookie|authoriz`,
		pattern: `(?:` + fold("sess") + `(?:` + fold("ion") + `)?(?:[_-]?` + fold("id") + `)?|` + fold("sid") + `|` + fold("csrf") + `_?` + fold("token") + `|` + fold("xsrf-token") + `|\.` + fold("aspxauth") + `|` +
			fold("aspnetcore") + `\.[A-Za-z.]*)(?:=|\\*["']:[ ]?)` + value + `|(?:` + fold("cookie") + `|` + fold("authorization") + `)` + is + header,
	},
}

// harmless are sets of what people allow where a field may hold nothing else. They are not among All.
var harmless = []*Set{
	{
		Name: "uuid", About: "UUIDs", Source: "RFC 9562, section 4",
		pattern: beforeWord + `[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}`, apart: dfa.FromAlnum,
	},
	{
		Name: "time", About: "dates, and dates with a time", Source: "RFC 3339",
		pattern: beforeWord + `[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)?`, apart: dfa.FromAlnum,
	},
}

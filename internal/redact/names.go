// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"strings"
	"unicode"
)

// The shipped rules look at names as people write them: userPassword, user_password, USER-PASSWORD and UserPasswords are
// the words user and password. A name means a secret or an identifier if one of its words is listed as a word, or if
// its words written together contain a listed part: "userpassword" is one word, and means what "userPassword" does.
type vocabulary struct {
	Words []string `json:"words"` // a whole word; a plural s is cut off before
	Parts []string `json:"parts"` // anywhere in the words written together
	Tails []string `json:"tails"` // at the end of one word: "authtoken", but not "tokenizer"
}

// secrets are names whose value opens something. Nothing lowers what is decided for them.
var secrets = vocabulary{
	Words: []string{
		"bearer", "canary", "cookie", "csrf", "cvc", "cvv", "cvv2", "jwt", "passcode", "psk", "pwd", "token", "xsrf",
	},
	Parts: []string{
		"accesskey", "apikey", "authorization", "clientkey", "connectionstring", "credential", "encryptionkey", "passphrase",
		"passwd", "password", "passwort", "privatekey", "privkey", "secret", "securitycode", "seedphrase", "sessionid",
		"sessionkey", "signingkey", "sshkey",
	},
	Tails: []string{"cookie", "token", "passcode"},
}

// identifiers are names whose value is about one person or account, or opens something in some programs and is harmless in
// others. An owner's rule for the field replaces what is decided.
var identifiers = vocabulary{
	Words: []string{
		"account", "acct", "auth", "birthday", "birthdate", "card", "csc", "dob", "hotp", "iban", "imei", "imsi", "msisdn",
		"mnemonic", "mobile", "otp", "pan", "pass", "passport", "phone", "pin", "pw", "sid", "sin", "ssn", "tel", "telephone",
		"tin", "totp",
	},
	Parts: []string{
		"accountno", "accountnumber", "cardno", "cardnumber", "creditcard", "dateofbirth", "debitcard", "driverlicence",
		"driverslicense", "driverlicense", "nationalid", "passportno", "phoneno", "phonenumber", "routingnumber",
		"socialsecurity", "taxid", "taxnumber",
	},
	Tails: []string{"phone", "iban"},
}

// amounts are names of types whose values are large and are nobody's number.
var amounts = vocabulary{
	Words: []string{
		"amount", "balance", "byte", "cent", "cost", "count", "currency", "date", "duration", "fee", "jiffies", "ktime", "micro", "milli", "money", "nano",
		"price", "second", "size", "tick", "time", "timespec", "timestamp", "timeval", "total",
	},
}

// means says whether a name is in the vocabulary.
func (v *vocabulary) means(name string) bool {
	words := splitWords(name)
	joined := strings.Join(words, "")
	for _, part := range v.Parts {
		if strings.Contains(joined, part) {
			return true
		}
	}
	for _, word := range words {
		if v.lists(word) || v.lists(strings.TrimSuffix(word, "s")) {
			return true
		}
	}
	return false
}

// endsIn says whether what a name ends in is in the vocabulary: what a SessionToken is, and a TokenBucket is not.
func (v *vocabulary) endsIn(name string) bool {
	words := splitWords(name)
	if len(words) == 0 {
		return false
	}
	joined := strings.Join(words, "")
	for _, part := range v.Parts {
		if strings.HasSuffix(joined, part) || strings.HasSuffix(joined, part+"s") {
			return true
		}
	}
	last := words[len(words)-1]
	return v.lists(last) || v.lists(strings.TrimSuffix(last, "s"))
}

func (v *vocabulary) lists(word string) bool {
	for _, w := range v.Words {
		if word == w {
			return true
		}
	}
	for _, tail := range v.Tails {
		if strings.HasSuffix(word, tail) {
			return true
		}
	}
	return false
}

// splitWords cuts a name at everything that is neither letter nor digit, before an upper-case letter that follows a
// lower-case one or a digit, and before the last of several upper-case letters if a lower-case one follows: APIKey is api,
// key. The words are in lower case.
func splitWords(name string) []string {
	var words []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			end()
			continue
		}
		if unicode.IsUpper(r) && len(word) > 0 {
			before := runes[i-1]
			followed := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !unicode.IsUpper(before) || followed {
				end()
			}
		}
		word = append(word, r)
	}
	end()
	return words
}

// typeWords is the name of a type without its package, pointers, brackets and type arguments: []*auth.Token is Token.
func typeWords(typeName string) string {
	if i := strings.IndexByte(typeName, '['); i > 0 && !strings.HasPrefix(typeName, "map[") {
		typeName = typeName[:i] // Type[Argument]
	}
	if i := strings.LastIndexAny(typeName, "./]* "); i >= 0 {
		typeName = typeName[i+1:]
	}
	return typeName
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
)

// A User is a customer who has signed in.
type User struct {
	Email    string
	Password string // as typed: what a probe must never carry out
	Limit    int64  // the largest order in cents
}

// A Directory knows the customers. Everybody with an address at a domain of examples is one; the password is
// "pw-" and the address.
type Directory struct {
	salt [16]byte
}

func newDirectory() *Directory {
	return &Directory{salt: [16]byte{'s', 'h', 'o', 'p'}}
}

// ErrSignIn says neither whether the address nor whether the password was wrong.
var ErrSignIn = errors.New("sign-in: wrong address or password")

// Authenticate checks a password.
func (d *Directory) Authenticate(email, password string) (*User, error) {
	want := d.hash("pw-" + email)
	got := d.hash(password)
	known := strings.HasSuffix(email, "@example.com") || strings.HasSuffix(email, "@example.org")
	if subtle.ConstantTimeCompare(want[:], got[:]) == 0 || !known {
		return nil, ErrSignIn
	}
	limit := int64(100_000)
	if strings.HasPrefix(email, "vip-") {
		limit = 1_000_000
	}
	return &User{Email: email, Password: password, Limit: limit}, nil
}

func (d *Directory) hash(password string) [sha256.Size]byte {
	return sha256.Sum256(append(d.salt[:], password...))
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A Gateway charges cards. This one asks nobody: a card is good if its check digit is, and declined if it ends in 0002.
type Gateway struct {
	Merchant string
}

// Charge takes an amount in cents from a card and returns the payment's number. It stays a call of its own in the
// binary, as the client of a real payment provider would.
//
//go:noinline
func (g *Gateway) Charge(card, email string, amount int64) (string, error) {
	if !validCard(card) {
		return "", errors.New("payment: not a card number")
	}
	if strings.HasSuffix(card, "0002") {
		return "", ErrDeclined
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%s|%d", g.Merchant, card, email, amount))
	return "pay_" + hex.EncodeToString(sum[:8]), nil
}

// validCard checks length and check digit (ISO/IEC 7812-1, annex B).
func validCard(card string) bool {
	if len(card) < 13 || len(card) > 19 {
		return false
	}
	var sum int
	for i := range len(card) {
		digit := int(card[len(card)-1-i] - '0')
		if digit < 0 || digit > 9 {
			return false
		}
		if i%2 == 1 {
			if digit *= 2; digit > 9 {
				digit -= 9
			}
		}
		sum += digit
	}
	return sum%10 == 0
}

func lastFour(card string) string {
	return "····" + card[max(0, len(card)-4):]
}

// orderNumber depends on nothing but the order, so that the same order has the same number in every run.
func orderNumber(user *User, payment string, qty int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d", user.Email, payment, qty))
	return "ord_" + hex.EncodeToString(sum[:6])
}

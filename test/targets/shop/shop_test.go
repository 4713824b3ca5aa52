// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestCheckout(t *testing.T) {
	const good = `{"email":"alice@example.com","password":"pw-alice@example.com","card":"4242424242424242","items":[{"sku":"tea-green","qty":2}]}`
	for _, c := range []struct {
		name, body string
		status     int
		answer     string
	}{
		{"good", good, http.StatusOK, `{"order":"ord_`},
		{"declined", strings.Replace(good, "4242424242424242", "4000000000000002", 1), http.StatusPaymentRequired, `payment: declined`},
		{"bad check digit", strings.Replace(good, "4242424242424242", "4242424242424241", 1), http.StatusUnprocessableEntity, `payment: not a card number`},
		{"wrong password", strings.Replace(good, "pw-", "x", 1), http.StatusUnauthorized, `wrong address or password`},
		{"empty", strings.Replace(good, `{"sku":"tea-green","qty":2}`, "", 1), http.StatusUnprocessableEntity, `empty cart`},
		{"unknown article", strings.Replace(good, "tea-green", "tea-red", 1), http.StatusUnprocessableEntity, `no article \"tea-red\"`},
		{"over the limit", strings.Replace(good, `"tea-green","qty":2`, `"pot-steel","qty":99`, 1), http.StatusUnprocessableEntity, `over the customer's limit`},
		{"not an order", `[]`, http.StatusBadRequest, `order: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second answer is the first one's
				w := httptest.NewRecorder()
				newShop().routes().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/checkout", strings.NewReader(c.body)))
				if w.Code != c.status || !strings.Contains(w.Body.String(), c.answer) {
					t.Errorf("answered %d %s; want %d with %q", w.Code, w.Body, c.status, c.answer)
				}
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net/http"
)

// A shop serves checkouts over HTTP.
type shop struct {
	users   *Directory
	gateway *Gateway
}

func newShop() *shop {
	return &shop{users: newDirectory(), gateway: &Gateway{Merchant: "keyhole-test-shop"}}
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /checkout", s.postCheckout)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

// An order is what a customer sends.
type order struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Card     string `json:"card"`
	Items    []Item `json:"items"`
}

// A receipt is what a customer gets.
type receipt struct {
	Order string `json:"order,omitempty"`
	Total int64  `json:"total,omitempty"` // in cents
	Card  string `json:"card,omitempty"`  // its last four digits
	Error string `json:"error,omitempty"`
}

func (s *shop) postCheckout(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&o); err != nil {
		answer(w, http.StatusBadRequest, receipt{Error: "order: " + err.Error()})
		return
	}
	user, err := s.users.Authenticate(o.Email, o.Password)
	if err != nil {
		answer(w, http.StatusUnauthorized, receipt{Error: err.Error()})
		return
	}
	cart := &Cart{Items: o.Items, gateway: s.gateway}
	total, err := cart.Total()
	if err != nil {
		answer(w, http.StatusUnprocessableEntity, receipt{Error: err.Error()})
		return
	}
	if err := cart.Checkout(r.Context(), user, o.Card, cart.Quantity(), total); err != nil {
		answer(w, status(err), receipt{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, receipt{Order: cart.Order, Total: total, Card: lastFour(o.Card)})
}

func status(err error) int {
	if errors.Is(err, ErrDeclined) {
		return http.StatusPaymentRequired
	}
	return http.StatusUnprocessableEntity
}

func answer(w http.ResponseWriter, status int, r receipt) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(r) // the client that does not read its answer is its own problem
}

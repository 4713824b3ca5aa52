// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
)

// An Item is one line of a cart.
type Item struct {
	SKU string `json:"sku"`
	Qty int    `json:"qty"`
}

// A Cart becomes an order by its Checkout.
type Cart struct {
	Items []Item
	Order string // the order's number, once checked out

	gateway *Gateway
}

// Errors of a checkout.
var (
	ErrEmpty    = errors.New("cart: empty cart")
	ErrDeclined = errors.New("payment: declined")
)

// prices in cents.
var prices = map[string]int64{
	"tea-green": 590, "tea-black": 490, "pot-steel": 3990, "cup-glass": 1290, "filter-100": 350,
}

// discounted is the quantity from which a tenth is taken off.
const discounted = 10

// Total is the price of all items in cents.
func (c *Cart) Total() (int64, error) {
	var total int64
	for _, item := range c.Items {
		price, ok := prices[item.SKU]
		if !ok {
			return 0, fmt.Errorf("cart: no article %q", item.SKU)
		}
		if item.Qty < 1 || item.Qty > 100 {
			return 0, fmt.Errorf("cart: %d of %q: sold by 1 to 100", item.Qty, item.SKU)
		}
		total += price * int64(item.Qty)
	}
	if c.Quantity() >= discounted {
		total -= total / 10
	}
	return total, nil
}

// Quantity is the number of pieces.
func (c *Cart) Quantity() int {
	var n int
	for _, item := range c.Items {
		n += item.Qty
	}
	return n
}

// Checkout charges the card and gives the cart its order number.
func (c *Cart) Checkout(ctx context.Context, user *User, card string, qty int, total int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if qty == 0 {
		return ErrEmpty
	}
	if total > user.Limit {
		return fmt.Errorf("cart: %d.%02d is over the customer's limit", total/100, total%100)
	}
	payment, err := c.gateway.Charge(card, user.Email, total)
	if err != nil {
		return err
	}
	c.Order = orderNumber(user, payment, qty)
	return nil
}

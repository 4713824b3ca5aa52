// SPDX-License-Identifier: Apache-2.0

// Command load sends checkouts to the shop and prints a digest of all answers, in the order of the requests. Two runs
// with the same seed and number of requests print the same digest, or the shop answered differently.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	address  string
	requests int
	workers  int
	rate     int
	seed     uint64
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "127.0.0.1:8080", "`address` of the shop")
	flag.IntVar(&o.requests, "requests", 1000, "`number` of checkouts to send")
	flag.IntVar(&o.workers, "workers", 2, "`number` of connections")
	flag.IntVar(&o.rate, "rate", 0, "checkouts a second at most; 0: no limit")
	flag.Uint64Var(&o.seed, "seed", 1, "what the orders are drawn from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// run prints one line: how many answers there were, how many of them refusals, and the digest.
func run(ctx context.Context, o options) error {
	if o.requests < 1 || o.workers < 1 || o.rate < 0 {
		return errors.New("requests and workers are at least 1, rate is not negative")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: o.workers},
	}
	defer client.CloseIdleConnections()

	if err := awaitShop(ctx, client, o.address); err != nil {
		return err
	}
	begin := time.Now()
	answers := make([][sha256.Size]byte, o.requests)
	var next, refused atomic.Int64
	var workers sync.WaitGroup
	for range o.workers {
		workers.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= o.requests || ctx.Err() != nil {
					return
				}
				if o.rate > 0 {
					wait(ctx, begin.Add(time.Duration(i)*time.Second/time.Duration(o.rate)))
				}
				answer, ok, err := checkout(ctx, client, o, i)
				if err != nil {
					cancel(fmt.Errorf("checkout %d: %w", i, err))
					return
				}
				if !ok {
					refused.Add(1)
				}
				answers[i] = answer
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	digest := sha256.New()
	for _, a := range answers {
		digest.Write(a[:])
	}
	fmt.Printf("answers %d refused %d digest sha256:%x\n", o.requests, refused.Load(), digest.Sum(nil))
	return nil
}

// awaitShop waits a few seconds for a shop that was started just before.
func awaitShop(ctx context.Context, client *http.Client, address string) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/health", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			return response.Body.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		wait(ctx, time.Now().Add(50*time.Millisecond))
	}
}

func wait(ctx context.Context, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkout sends one order and digests the answer: its status and its body.
func checkout(ctx context.Context, client *http.Client, o options, i int) (sum [sha256.Size]byte, ok bool, err error) {
	body, err := json.Marshal(newOrder(o.seed, i))
	if err != nil {
		return sum, false, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+o.address+"/checkout", bytes.NewReader(body))
	if err != nil {
		return sum, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return sum, false, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return sum, false, err
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return sum, false, fmt.Errorf("%s: %s", response.Status, answer)
	}
	sum = sha256.Sum256(fmt.Appendf(nil, "%d %d %s", i, response.StatusCode, answer))
	return sum, response.StatusCode == http.StatusOK, nil
}

type item struct {
	SKU string `json:"sku"`
	Qty int    `json:"qty"`
}

type order struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Card     string `json:"card"`
	Items    []item `json:"items"`
}

// cards are the numbers that payment providers publish for tests; the shop declines the last but one and does not
// take the last.
var cards = []string{
	"4242424242424242", "4012888888881881", "5555555555554444", "378282246310005", "4000000000000002", "4242424242424241",
}

var articles = []string{"tea-green", "tea-black", "pot-steel", "cup-glass", "filter-100"}

var customers = []string{
	"alice@example.com", "bob@example.org", "carol@example.com", "dave@example.org", "vip-erin@example.com",
}

// newOrder draws order i. It depends on the seed and i alone. About one in fifty is empty and one in fifty has a wrong
// password.
func newOrder(seed uint64, i int) order {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	o := order{Email: customers[r.IntN(len(customers))], Card: cards[0]}
	o.Password = "pw-" + o.Email
	if r.IntN(50) == 0 {
		o.Password = "guessed"
	}
	if r.IntN(4) == 0 {
		o.Card = cards[r.IntN(len(cards))]
	}
	if r.IntN(50) == 0 {
		return o
	}
	for range 1 + r.IntN(3) {
		o.Items = append(o.Items, item{SKU: articles[r.IntN(len(articles))], Qty: 1 + r.IntN(6)})
	}
	return o
}

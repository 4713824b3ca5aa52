// SPDX-License-Identifier: Apache-2.0

// Command shop is a test target: a checkout service as a team would write it, with nothing in it that knows of probes. Its
// functions take what should not leave a process: card numbers, passwords, e-mail addresses. The same requests get
// the same answers, byte for byte, whatever their order, so that runs with and without a probe can be compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to serve on")
	flag.Parse()
	if err := serve(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// serve prints "ready ADDRESS" when it takes requests and returns after SIGTERM or an interrupt.
func serve(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           newShop().routes(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Println("ready", listener.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

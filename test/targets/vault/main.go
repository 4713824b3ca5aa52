// SPDX-License-Identifier: Apache-2.0

// Command vault is a test target whose one interesting function is handed secrets. It does what the lines of its
// standard input say, one after the other, and answers each with a line:
//
//	secret TEXT   keep TEXT for the calls that follow; answered with "ok"
//	call N        call Open N times with it; answered with "called N SUM"
//	threads N     spread the calls over N goroutines; answered with "ok"
//	become PATH   replace this program by another, in the same process
//
// It ends with its standard input.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

func main() {
	fmt.Println("ready")
	if err := obey(bufio.NewScanner(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func obey(lines *bufio.Scanner) error {
	v := &vault{threads: 1}
	for lines.Scan() {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		if command == "secret" {
			v.secret = rest
			fmt.Println("ok")
			continue
		}
		if command == "become" {
			return syscall.Exec(rest, []string{rest}, os.Environ())
		}
		n, err := strconv.Atoi(rest)
		if err != nil || n < 1 {
			return fmt.Errorf("%s: want a number above 0, not %q", command, rest)
		}
		switch command {
		case "threads":
			v.threads = n
			fmt.Println("ok")
		case "call":
			fmt.Println("called", n, v.call(n))
		default:
			return fmt.Errorf("no command %q", command)
		}
	}
	return lines.Err()
}

type vault struct {
	secret  string
	threads int
}

// call spreads n calls of Open over the threads and adds up what they return.
func (v *vault) call(n int) uint64 {
	sums := make([]uint64, v.threads)
	var workers sync.WaitGroup
	for w := range v.threads {
		workers.Go(func() {
			for i := w; i < n; i += v.threads {
				sums[w] += Open(v.secret, v.secret, i)
			}
		})
	}
	workers.Wait()
	var sum uint64
	for _, s := range sums {
		sum += s
	}
	return sum
}

// Open computes something of all its arguments. The shipped rules drop an account.
//
//go:noinline
func Open(account, note string, n int) uint64 {
	sum := uint64(14695981039346656037) + uint64(n)
	for i := range len(account) {
		sum = (sum ^ uint64(account[i])) * 1099511628211
	}
	for i := range len(note) {
		sum = (sum ^ uint64(note[i])) * 1099511628211
	}
	return sum
}

// SPDX-License-Identifier: Apache-2.0

// Command cgotails is a Go program with a function of C that ends in a call of another.
package main

/*
__attribute__((noinline, noclone)) long last(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
__attribute__((noinline, noclone)) long tail(long n) { return last(2 * n); }
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	fmt.Println(C.tail(1))
}

// SPDX-License-Identifier: Apache-2.0

// Command stacks calls main.Probe from inlined functions, from methods behind an interface, from closures and by recursion, and
// answers each line of its standard input with what Go's own runtime says of one such stack: for each call, innermost first,
// the offset of its code in the executable, the function, the file and the line, separated by tabs; an empty line ends it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

var stack [64]uintptr

// Probe notes its callers.
//
//go:noinline
func Probe(n int, pcs []uintptr) int {
	return n + runtime.Callers(1, pcs)
}

// add and twice are inlined into each other and into who calls them.
func add(n int) int   { return Probe(n, stack[:]) + 1 }
func twice(n int) int { return 2 * add(n) }

type counter interface{ count(n int) int }

type embedded struct{ step int }

func (e *embedded) count(n int) int { return twice(n + e.step) }

// outer gets its method by a wrapper that the compiler makes.
type outer struct{ *embedded }

//go:noinline
func recurse(depth int, c counter) int {
	if depth > 0 {
		return recurse(depth-1, c) + 1
	}
	return func() int { return c.count(depth) }()
}

func main() {
	base, offset := text()
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		depth, err := strconv.Atoi(lines.Text())
		if err != nil {
			panic(err)
		}
		clear(stack[:])
		done := make(chan int)
		go func() { done <- recurse(depth, outer{&embedded{step: 1}}) }()
		<-done
		n := 0
		for n < len(stack) && stack[n] != 0 {
			n++
		}
		frames := runtime.CallersFrames(stack[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			fmt.Fprintf(out, "%d\t%s\t%s\t%d\n", uint64(f.PC)-base+offset, f.Function, f.File, f.Line)
		}
		fmt.Fprintln(out)
		if err := out.Flush(); err != nil {
			panic(err)
		}
	}
}

// text is where the kernel has mapped the code of this executable, and from which offset of the file.
func text() (start, offset uint64) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		panic(err)
	}
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(maps)) {
		if f := strings.Fields(line); len(f) == 6 && f[5] == path && f[1] == "r-xp" {
			from, _, _ := strings.Cut(f[0], "-")
			start, _ = strconv.ParseUint(from, 16, 64)
			offset, _ = strconv.ParseUint(f[2], 16, 64)
			return start, offset
		}
	}
	panic("no code of " + path)
}

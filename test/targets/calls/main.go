// SPDX-License-Identifier: Apache-2.0

// Command calls makes calls of all the kinds that a tracer pairs wrongly if it can: recursive ones on goroutines that change threads
// and whose stacks grow and shrink, ones that a panic ends which is recovered above, and ones whose goroutine ends within them. It
// reads commands from standard input and answers each with how many calls of main.Work began and how many returned.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var began, returned atomic.Int64

var errOdd = errors.New("odd")

// What becomes of a call at the innermost level.
const (
	returns = iota
	panics
	exits
	blocks
)

var release = make(chan struct{})

// Work calls itself to a depth. Its result says which call it was.
//
//go:noinline
func Work(depth int, id uint64, end int, label string) (sum uint64, err error) {
	began.Add(1)
	var room [128]byte // stacks are to grow
	room[depth&127] = byte(id)
	if depth%3 == 0 {
		runtime.Gosched()
	}
	switch {
	case depth > 0 && depth%5 == 0:
		guarded(depth-1, id, end, label)
	case depth > 0:
		if _, err := Work(depth-1, id, end, label); err != nil && depth&1 == 0 {
			runtime.Gosched()
		}
	case end == panics:
		panic("innermost")
	case end == exits:
		runtime.Goexit()
	case end == blocks:
		<-release
	}
	returned.Add(1)
	if depth&1 == 1 {
		return id<<16 | uint64(depth)<<8 | uint64(room[depth&127]), errOdd
	}
	return id<<16 | uint64(depth)<<8 | uint64(room[depth&127]), nil
}

// guarded recovers what comes from below it: the calls in between never return.
//
//go:noinline
func guarded(depth int, id uint64, end int, label string) {
	defer func() { _ = recover() }()
	_, _ = Work(depth, id, end, label)
}

// shrink lets the garbage collector halve the stacks that are not used.
func shrink() {
	for range 3 {
		runtime.GC()
	}
}

func run(goroutines, depth, end, rounds int) {
	var wg sync.WaitGroup
	for n := range goroutines {
		wg.Go(func() {
			for round := range rounds {
				// Outside of the last guard there is one call, of a depth that is no multiple of 5, so that guarded catches all panics.
				guarded(depth, uint64(round*goroutines+n), end, fmt.Sprintf("%d/%d", n, round))
			}
		})
	}
	wg.Wait()
}

func main() {
	fmt.Println("ready")
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		began.Store(0)
		returned.Store(0)
		var what string
		var goroutines, depth, rounds int
		if n, _ := fmt.Sscan(commands.Text(), &what, &goroutines, &depth, &rounds); n != 4 {
			fmt.Println("unknown command")
			continue
		}
		switch what {
		case "return":
			run(goroutines, depth, returns, rounds)
		case "panic":
			run(goroutines, depth, panics, rounds)
		case "exit":
			run(goroutines, depth, exits, 1)
		case "mixed":
			var wg sync.WaitGroup
			for _, end := range []int{returns, panics, returns, exits} {
				wg.Go(func() { run(goroutines/4, depth, end, rounds) })
			}
			wg.Wait()
		case "shrink":
			for range rounds {
				run(goroutines, depth, returns, 1)
				shrink()
			}
		case "block":
			release = make(chan struct{})
			for n := range goroutines {
				go guarded(depth, uint64(n), blocks, "blocked")
			}
			for began.Load() < int64(goroutines*(depth+1)) {
				time.Sleep(time.Millisecond)
			}
		case "release":
			close(release)
			for returned.Load() < int64(goroutines*(depth+1)) {
				time.Sleep(time.Millisecond)
			}
		}
		fmt.Println("done", began.Load(), returned.Load())
	}
}

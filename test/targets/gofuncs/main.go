// SPDX-License-Identifier: Apache-2.0

// Command gofuncs calls functions of every shape that a probe has to read, and says before each call what it passes: a line
//
//	call NAME PATH=VALUE PATH=VALUE ...
//
// with strings quoted as in Go, so that a test can compare what a probe saw with what was there. All calls are made on the process's first
// thread. It prints "ready" first and begins when it reads a line; each further line is one more round; it ends when
// its input does.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
)

func init() { runtime.LockOSThread() }

func main() {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		round()
		fmt.Println("done")
	}
}

// say prints what a call passes: name, then path and value by turns.
func say(name string, pairs ...any) {
	var b strings.Builder
	b.WriteString("call " + name)
	for i := 0; i < len(pairs); i += 2 {
		switch v := pairs[i+1].(type) {
		case string:
			fmt.Fprintf(&b, " %s=%q", pairs[i], v)
		case []byte:
			fmt.Fprintf(&b, " %s=%q", pairs[i], v)
		default:
			fmt.Fprintf(&b, " %s=%v", pairs[i], v)
		}
	}
	fmt.Println(b.String())
}

func round() {
	for n := range 3 {
		say("Signed", "a", int8(-n), "b", int16(-300*n), "c", int32(-70000*n), "d", int64(-5000000000*n), "e", -n)
		Signed(int8(-n), int16(-300*n), int32(-70000*n), int64(-5000000000*n), -n)
		say("Unsigned", "a", uint8(n+250), "b", uint16(n+65000), "c", uint32(n+4000000000), "d", uint64(n)+1<<63, "e", n == 1)
		Unsigned(uint8(n+250), uint16(n+65000), uint32(n+4000000000), uint64(n)+1<<63, n == 1)
	}
	for _, s := range []string{"", "x", "naïve café", strings.Repeat("long ", 60)} {
		say("Text", "s", s, "b", []byte(s+"!"), "len(list)", len(s)%3, "list", len(s)%3)
		Text(s, []byte(s+"!"), make([]int, len(s)%3))
	}
	user := &User{Name: "ann", Contact: &Contact{Email: "ann@example.org", Phone: "555"}, Age: 41, Admin: true}
	say("(*User).Greet", "u.Name", user.Name, "u.Contact.Email", user.Contact.Email, "u.Age", user.Age, "u.Admin", user.Admin, "u.Level", user.Level, "times", 7)
	user.Greet(7)
	user.Contact, user.Level = nil, 3
	say("(*User).Greet", "u.Name", user.Name, "u.Contact.Email", "nil pointer", "u.Age", user.Age, "u.Admin", user.Admin, "u.Level", user.Level, "times", 8)
	user.Greet(8)
	say("User.Copy", "u.Name", user.Name, "u.Age", user.Age, "u.Contact", 0, "n", 9)
	user.Copy(9)
	point := Point{X: -3, Y: 1 << 40, Label: "p", Weight: 2.5}
	say("ByValue", "p.X", point.X, "p.Y", point.Y, "p.Label", point.Label, "n", 11)
	ByValue(point, 11)
	say("OnStack", "a", 1, "j", 10, "k", 11, "s", "spilled", "n", int8(-12))
	OnStack(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "spilled", -12)
	say("Large", "l.N", 77, "l.S", "in memory", "n", 13)
	Large(Matrix{N: 77, S: "in memory"}, 13)
	say("Generic", "n", 5)
	Generic([]string{"a", "b"}, 5)
	say("AddressTaken", "x", 21, "s", "addressed")
	AddressTaken(21, "addressed")
	say("Escapes", "x", 22, "s", "escaped")
	Escapes(22, "escaped")
	say("Leaf", "x", 23, "y", uint8(24))
	Leaf(23, 24)
	say("Framed", "n", 2, "s", "frame")
	Framed(2, "frame")
	say("Huge", "n", 3, "s", "huge")
	Huge(3, "huge")
	say("Opaque", "n", 31, "f", 1.5)
	Opaque(user, map[string]int{}, make(chan int), func() {}, 1.5, 31)
	total = Inlined(total) + *kept
	Check(&Login{"u", Credentials{1, 2, "t"}}, &Password{3})
	// It begins on a small stack, which grows on the way: each call must still be one hit.
	say("Deep", "n", 200)
	Deep(200)
}

// A User has what hangs off a pointer.
type User struct {
	Name    string
	Contact *Contact
	Age     int
	Admin   bool
	Rank
}

// Rank is embedded.
type Rank struct{ Level uint16 }

// A Login promotes the fields of what it embeds.
type Login struct {
	Name string
	Credentials
}

// Credentials have a name that rules know.
type Credentials struct {
	Low, High uint64
	Text      string
}

// A Password is a secret by its type alone.
type Password struct{ Low uint64 }

// A Contact is behind a second pointer.
type Contact struct{ Email, Phone string }

// A Point fits registers, in part of the floating-point kind.
type Point struct {
	X      int8
	Y      int64
	Label  string
	Weight float64
}

// A Matrix is passed in memory: registers hold no arrays.
type Matrix struct {
	Cells [4]int32
	N     int
	S     string
}

var (
	total int
	kept  *int
)

//go:noinline
func Signed(a int8, b int16, c int32, d int64, e int) { total += int(a) + int(b) + int(c) + int(d) + e }

//go:noinline
func Check(l *Login, p *Password) { total += int(l.Low + p.Low) }

//go:noinline
func Unsigned(a uint8, b uint16, c uint32, d uint64, e bool) {
	if e {
		total += int(a) + int(b) + int(c) + int(d)
	}
}

//go:noinline
func Text(s string, b []byte, list []int) { total += len(s) + len(b) + len(list) + cap(b) + cap(list) }

// Greet has a pointer receiver.
//
//go:noinline
func (u *User) Greet(times int) { total += len(u.Name) * times }

// Copy has a receiver by value.
//
//go:noinline
func (u User) Copy(n int) {
	total += len(u.Name) + n + u.Age + int(u.Level)
	if u.Admin && u.Contact != nil {
		total++
	}
}

//go:noinline
func ByValue(p Point, n int) { total += int(p.X) + int(p.Y) + len(p.Label) + int(p.Weight) + n }

//go:noinline
func OnStack(a, b, c, d, e, f, g, h, i, j, k int, s string, n int8) {
	total += a + b + c + d + e + f + g + h + i + j + k + len(s) + int(n)
}

//go:noinline
func Large(l Matrix, n int) { total += int(l.Cells[n&3]) + l.N + len(l.S) }

//go:noinline
func Generic[T any](list []T, n int) { total += len(list) + n }

//go:noinline
func AddressTaken(x int, s string) { add(&x); total += x + len(s) }

//go:noinline
func add(x *int) { *x++ }

//go:noinline
func Escapes(x int, s string) { kept = &x; total += len(s) }

//go:noinline
func Leaf(x int, y uint8) { total += x + int(y) }

//go:noinline
func Framed(n int, s string) {
	var buffer [600]byte
	fill(buffer[:], n)
	total += int(buffer[n]) + len(s)
}

//go:noinline
func Huge(n int, s string) {
	var buffer [9000]byte
	fill(buffer[:], n)
	total += int(buffer[n]) + len(s)
}

//go:noinline
func fill(b []byte, n int) { b[n%len(b)] = byte(n) }

//go:noinline
func Opaque(i any, m map[string]int, c chan int, f func(), x float64, n int) {
	if i != nil && m != nil && c != nil && f != nil {
		total += int(x) + n
	}
}

//go:noinline
func Deep(n int) {
	if n == 0 {
		return
	}
	var buffer [128]byte
	fill(buffer[:], n)
	total += int(buffer[n&127])
	say("Deep", "n", n-1)
	Deep(n - 1)
}

// Inlined has no code of its own.
func Inlined(n int) int {
	if n%7 == 3 {
		return n / 3
	}
	return n + len(os.Args)
}

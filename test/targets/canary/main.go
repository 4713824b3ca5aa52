// SPDX-License-Identifier: Apache-2.0

// Command canary is a test target whose one interesting function is handed secrets in every form that a Go program has for them: in registers,
// on the stack, behind pointers, as results. It does what the lines of its standard input say and answers each with a line:
//
//	set NAME VALUE   the value for the calls that follow; answered with "ok"
//	hold HEX         keep these bytes in memory; answered with "ok"
//	call N           call Take N times with the values; answered with "called N SUM"
//
// It ends with its standard input.
package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

// A Record is what a pointer leads to.
type Record struct {
	Text  string
	Raw   []byte
	Array [40]byte
	Many  []struct{} // as many as no memory could hold of anything else
	Float float64
	Flag  bool
	Inner *Inner
}

// Inner lies behind another pointer, and holds a struct in itself.
type Inner struct {
	Text   string
	Number uint64
	Below  struct {
		Text string
		Last *Last
	}
}

// Last is as deep as it gets.
type Last struct{ Text string }

type arguments struct {
	text    string
	raw     []byte
	signed  int64
	number  uint64
	record  *Record
	pointer unsafe.Pointer
	stacked string
	far     uint64
	box     Last
	table   map[string]string
	answer  string
	failure error
}

func main() {
	fmt.Println("ready")
	if err := obey(bufio.NewScanner(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, "canary:", err)
		os.Exit(1)
	}
}

var held [][]byte

func obey(lines *bufio.Scanner) error {
	a := &arguments{record: &Record{Flag: true, Inner: &Inner{}}}
	a.record.Inner.Below.Last = &Last{}
	for lines.Scan() {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "set":
			name, value, _ := strings.Cut(rest, " ")
			if err := a.set(name, strings.Clone(value)); err != nil {
				return err
			}
			fmt.Println("ok")
		case "hold":
			b, err := hex.DecodeString(rest)
			if err != nil {
				return err
			}
			held = append(held, b)
			fmt.Println("ok")
		case "call":
			n, err := strconv.Atoi(rest)
			if err != nil {
				return err
			}
			var sum int
			for range n {
				answer, given, err := Take(a.text, a.raw, a.signed, a.number, a.record, a.pointer, a.stacked, a.far, a.box, a.table, a)
				sum += len(answer) + int(given&1)
				if err != nil {
					sum++
				}
			}
			fmt.Println("called", n, sum)
		default:
			return fmt.Errorf("no command %q", command)
		}
	}
	return lines.Err()
}

func (a *arguments) set(name, value string) error {
	number, _ := strconv.ParseUint(value, 10, 64) // 0 of what is no number
	r := a.record
	switch name {
	case "text":
		a.text = value
	case "raw":
		a.raw = []byte(value)
	case "signed":
		a.signed = int64(number)
	case "number":
		a.number = number
	case "pointer":
		address := uintptr(number)
		a.pointer = *(*unsafe.Pointer)(unsafe.Pointer(&address)) // nothing follows it
	case "stacked":
		a.stacked = value
	case "far":
		a.far = number
	case "box":
		a.box.Text = value
	case "table":
		a.table = map[string]string{value: value}
	case "answer":
		a.answer = value
	case "err":
		a.failure = errors.New(value)
	case "record.Many":
		r.Many = make([]struct{}, number)
	case "record.Text":
		r.Text = value
	case "record.Raw":
		r.Raw = []byte(value)
	case "record.Array":
		copy(r.Array[:], value)
	case "record.Float":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		r.Float = f
	case "record.Inner.Text":
		r.Inner.Text = value
	case "record.Inner.Number":
		r.Inner.Number = number
	case "record.Inner.Below.Text":
		r.Inner.Below.Text = value
	case "record.Inner.Below.Last.Text":
		r.Inner.Below.Last.Text = value
	default:
		return fmt.Errorf("no value is called %q", name)
	}
	return nil
}

// Take computes something of its arguments. Those from stacked on do not fit into registers.
//
//go:noinline
func Take(text string, raw []byte, signed int64, number uint64, record *Record, pointer unsafe.Pointer, stacked string, far uint64,
	box Last, table map[string]string, a *arguments) (answer string, given uint64, err error) {
	sum := bytes(text) + bytes(string(raw)) + bytes(stacked) + bytes(box.Text) + uint64(len(table)) + uint64(signed) + far + uint64(uintptr(pointer))
	if sum == number || record == nil {
		return "", sum, nil
	}
	return a.answer, number, a.failure
}

//go:noinline
func bytes(s string) (sum uint64) {
	for i := range len(s) {
		sum += uint64(s[i])
	}
	return sum
}

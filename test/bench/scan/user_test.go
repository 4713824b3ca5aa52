// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// A user is the same C in a process of its own, which needs a C compiler.
type user struct {
	in  *bufio.Writer
	out *bufio.Reader
}

func startUser(t *testing.T) *user {
	t.Helper()
	program := filepath.Join(t.TempDir(), "user")
	compile := exec.CommandContext(t.Context(), "cc", "-std=gnu2x", "-O2", "-fsanitize=undefined,bounds", "-fno-sanitize-recover", "-o", program, "testdata/user.c")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile the program for user space: %v\n%s", err, out)
	}
	cmd := exec.Command(program) // it ends with its input
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program in user space: %v", err)
		}
	})
	return &user{bufio.NewWriterSize(in, 1<<20), bufio.NewReaderSize(out, 1<<20)}
}

type userRequest struct{ What, N, Cut, More uint32 }

// A job is one value to look at.
type job struct {
	value []byte
	cut   bool
	allow bool
}

// run hands machines and values over, and returns what is left of each value, and whether it may leave.
func (u *user) run(machines []*dfa.Machine, jobs []job) ([]Result, error) {
	image, err := dfa.NewImage(machines)
	if err != nil {
		return nil, err
	}
	tables := image.Bytes()
	write := func(r userRequest, data []byte) error {
		return errors.Join(binary.Write(u.in, binary.NativeEndian, r), func() error { _, err := u.in.Write(data); return err }())
	}
	if err := write(userRequest{N: uint32(len(tables)), More: uint32(len(machines))}, tables); err != nil {
		return nil, err
	}
	wrote := make(chan error, 1)
	go func() { // whoever writes all before he reads may wait for ever
		for i, j := range jobs {
			r := userRequest{What: 2, N: uint32(len(j.value))}
			if j.allow {
				r.What = 3
			}
			if j.cut {
				r.Cut = 1
			}
			if i == len(jobs)-1 {
				r.More = 1 // say what there is
			}
			if err := write(r, j.value); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- u.in.Flush()
	}()
	results := make([]Result, len(jobs))
	for i, j := range jobs {
		if err := binary.Read(u.out, binary.NativeEndian, &results[i].Answer); err != nil {
			return nil, errors.Join(err, <-wrote)
		}
		results[i].Value = make([]byte, len(j.value))
		if _, err := io.ReadFull(u.out, results[i].Value); err != nil {
			return nil, errors.Join(err, <-wrote)
		}
	}
	return results, <-wrote
}

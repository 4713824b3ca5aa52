// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type word struct {
	Text string `json:"text"`
}

func newPair(t *testing.T) (a, b *conn) {
	t.Helper()
	x, y, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	a, b = newConn(x, "a"), newConn(y, "b")
	t.Cleanup(a.close)
	t.Cleanup(b.close)
	return a, b
}

// TestConnFiles sends descriptors with frames, long ones too, and gets each with its own frame.
func TestConnFiles(t *testing.T) {
	a, b := newPair(t)
	b.acceptFiles()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	long := strings.Repeat("x", 3<<20) // far more than the socket holds
	texts := []string{"one", long, "without", long, "two"}
	withFiles := []int{1, 1, 0, 0, 2}
	sent := make(chan error, 1)
	go func() {
		for i, text := range texts {
			var fds []int
			for range withFiles[i] {
				fds = append(fds, int(file.Fd()))
			}
			if err := a.send(word{text}, fds...); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, text := range texts {
		var w word
		files, err := b.receive(&w)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if w.Text != text || len(files) != withFiles[i] {
			t.Errorf("frame %d: %d bytes with %d files; want %d with %d", i, len(w.Text), len(files), len(text), withFiles[i])
		}
		for _, f := range files {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("frame %d: a received descriptor survives an exec (%v)", i, err)
			}
		}
		closeFiles(files)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// TestConnThrowsFilesAway has a side that takes no descriptors: such as come are closed by the kernel, and the frame is read.
func TestConnThrowsFilesAway(t *testing.T) {
	a, b := newPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.send(word{"take this"}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var got word
	if files, err := b.receive(&got); err != nil || len(files) != 0 || got.Text != "take this" {
		t.Fatalf("%+v, %d files, %v", got, len(files), err)
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the pipe's other end is still open somewhere: %v", err)
	}
}

func TestConnRefusesManyFiles(t *testing.T) {
	a, b := newPair(t)
	b.acceptFiles()
	fds := make([]int, maxFiles+3)
	if err := a.send(word{"many"}, fds...); err != nil {
		t.Fatal(err)
	}
	if files, err := b.receive(new(word)); err == nil {
		closeFiles(files)
		t.Errorf("%d descriptors with one frame are taken", len(files))
	}
}

// TestConnBroken makes a frame that was sent in part the last one.
func TestConnBroken(t *testing.T) {
	a, b := newPair(t)
	if err := a.file.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := a.send(word{strings.Repeat("x", 4<<20)}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("nobody reads, and sending says %v", err)
	}
	if err := a.file.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := a.send(word{"behind half a frame"}); err == nil {
		t.Error("a frame is sent behind half of another")
	}
	a.close()
	if _, err := b.receive(new(word)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame reads as %v", err)
	}
}

// TestHandOver reads what was handed over, which nobody can change in between.
func TestHandOver(t *testing.T) {
	fd, err := handOver("test", word{"for you"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("what was handed over can be written to: %v", err)
	}
	var got word
	if err := takeOver(fd, &got); err != nil || got.Text != "for you" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBootTimer(t *testing.T) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	fired := make(chan struct{})
	timer, err := atBootTime(uint64(now.Nano())+uint64(20*time.Millisecond), func() { close(fired) })
	if err != nil {
		t.Fatal(err)
	}
	<-fired
	timer.stop()
	var after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &after); err != nil {
		t.Fatal(err)
	}
	if took := time.Duration(after.Nano() - now.Nano()); took < 20*time.Millisecond {
		t.Errorf("it fired after %v", took)
	}
	stopped, err := atBootTime(uint64(after.Nano())+uint64(50*time.Millisecond), func() { t.Error("a stopped timer fired") })
	if err != nil {
		t.Fatal(err)
	}
	stopped.stop()
	time.Sleep(100 * time.Millisecond)
}

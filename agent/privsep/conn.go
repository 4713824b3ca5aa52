// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/frame"
)

// maxRequestValues is how many values a frame may hold that a process with capabilities receives: a Target with all that it can have has a third of them.
const maxRequestValues = 1 << 14

// maxFiles is how many descriptors one frame may carry. One is what we need.
const maxFiles = 4

// A conn carries frames, and descriptors with them, between two of our processes: one end of a stream socket pair.
// One goroutine may receive while others send.
type conn struct {
	file *os.File

	sending sync.Mutex
	broken  error // a frame that was sent in part: what would follow it is rubbish to the other side

	values int    // that a frame which is received may hold; 0: as many as fit
	oob    []byte // the room for descriptors; nil: such as come are closed by the kernel
	files  []*os.File
}

// socketPair returns two connected sockets, closed on exec and not blocking.
func socketPair() (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make socket pair: %w", err)
	}
	return fds[0], fds[1], nil
}

// newConn takes over a descriptor that socketPair made.
func newConn(fd int, name string) *conn {
	return &conn{file: os.NewFile(uintptr(fd), name)}
}

// acceptFiles makes receive return the descriptors that come with frames.
func (c *conn) acceptFiles() { c.oob = make([]byte, unix.CmsgSpace(4*maxFiles)) }

// send sends one frame, and with it duplicates of the descriptors. An error leaves the connection useless.
func (c *conn) send(v any, fds ...int) error {
	b, err := frame.Marshal(v)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.broken != nil {
		return c.broken
	}
	if len(fds) > 0 {
		n, err := c.sendRights(b, fds)
		if err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		b = b[n:]
	}
	if _, err := c.file.Write(b); err != nil {
		c.broken = fmt.Errorf("send frame: %w", err)
		return c.broken
	}
	return nil
}

// sendRights sends the beginning of a frame with the descriptors and returns how much of it was taken.
func (c *conn) sendRights(b []byte, fds []int) (int, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	rights := unix.UnixRights(fds...)
	var n int
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		for {
			n, sendErr = unix.SendmsgN(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(sendErr, unix.EINTR) {
				return !errors.Is(sendErr, unix.EAGAIN)
			}
		}
	})
	return n, errors.Join(err, sendErr)
}

// receive reads one frame and returns the files that came with it, which the caller closes. At the end of the stream it
// returns io.EOF.
func (c *conn) receive(v any) ([]*os.File, error) {
	values := c.values
	if values == 0 {
		values = frame.MaxBytes
	}
	var err error
	if c.oob == nil {
		err = frame.ReadAtMost(c.file, v, values)
	} else {
		err = frame.ReadAtMost(rightsReader{c}, v, values)
	}
	files := c.files
	c.files = nil
	if err != nil {
		closeFiles(files)
		return nil, err
	}
	return files, nil
}

// receiveWithin is receive with a limit of time.
func (c *conn) receiveWithin(limit time.Duration, v any) error {
	if err := c.file.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.receive(v); err != nil {
		return err
	}
	return c.file.SetReadDeadline(time.Time{})
}

func (c *conn) close() { c.file.Close() }

// A rightsReader reads the socket's bytes and puts the descriptors among them aside.
type rightsReader struct{ *conn }

func (r rightsReader) Read(p []byte) (int, error) {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n, oobn, flags int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, readErr = unix.Recvmsg(int(fd), p, r.oob, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(readErr, unix.EINTR) {
				return !errors.Is(readErr, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(err, readErr); err != nil {
		return 0, err
	}
	if err := r.keep(r.oob[:oobn]); err != nil {
		return 0, err
	}
	if flags&unix.MSG_CTRUNC != 0 || len(r.files) > maxFiles {
		return 0, errors.New("too many descriptors with one frame")
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r rightsReader) keep(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("read descriptors: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fmt.Errorf("read descriptors: %w", err)
		}
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

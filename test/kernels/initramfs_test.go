// SPDX-License-Identifier: Apache-2.0

package kernels_test

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeInitramfs writes a directory as the kernel takes its initial file system: a cpio archive of the kind "newc", everything in it
// root's (Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed: an emulated processor would take seconds.
func writeInitramfs(path, dir string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	inode := 0
	entry := func(name string, mode uint32, size int64, content io.Reader) error {
		inode++
		// Magic, inode, mode, user, group, links, time, size, device, device of the node, length of the name, no checksum.
		header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
		if _, err := w.WriteString(header + padding(len(header))); err != nil {
			return err
		}
		if content != nil {
			if _, err := io.CopyN(w, content, size); err != nil {
				return err
			}
		}
		_, err := w.WriteString(padding(int(size)))
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return addFile(entry, name, path, d)
	})
	if err == nil {
		err = entry("TRAILER!!!", 0, 0, nil)
	}
	if err == nil {
		err = w.Flush()
	}
	return err
}

func addFile(entry func(string, uint32, int64, io.Reader) error, name, path string, d fs.DirEntry) error {
	const regular, directory, link = 0o100000, 0o040000, 0o120000
	switch {
	case d.IsDir():
		return entry(name, directory|0o755, 0, nil)
	case d.Type() == fs.ModeSymlink:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return entry(name, link|0o777, int64(len(to)), strings.NewReader(to))
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return entry(name, regular|0o755, info.Size(), f)
}

// padding goes behind what is n bytes long: everything begins at a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

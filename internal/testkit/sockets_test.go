// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOpenDoors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var want []string
	before := OpenDoors(t, os.Getpid())
	for _, l := range [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"unix", path}, {"unix", "@keyhole-testkit"}} {
		listener, err := net.Listen(l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		want = append(want, l[0]+" "+listener.Addr().String())
	}
	for _, l := range [][2]string{{"udp", "127.0.0.1:0"}, {"unixgram", "@keyhole-datagrams"}} {
		conn, err := net.ListenPacket(l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		network := l[0]
		if network == "unixgram" {
			network = "unix"
		}
		want = append(want, network+" "+conn.LocalAddr().String())
	}
	pair, err := net.Dial("tcp", want[0][len("tcp "):])
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close() // a connection is not a door
	want = append(want, before...)
	slices.Sort(want)
	if got := OpenDoors(t, os.Getpid()); !slices.Equal(got, want) {
		t.Errorf("found %q\nwant  %q", got, want)
	}
}

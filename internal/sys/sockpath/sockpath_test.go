package sockpath

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLongPath: a directory whose path alone is longer than an address.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one takes the name over
		d, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.Listen("s.sock")
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan *net.UnixConn, 1)
		go func() {
			c, _ := l.AcceptUnix()
			accepted <- c
		}()
		c, err := d.Dial(t.Context(), "s.sock")
		if err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		uid, pid, err := Peer(server)
		if err != nil || int(uid) != os.Geteuid() || pid != os.Getpid() {
			t.Errorf("Peer = %d, %d, %v", uid, pid, err)
		}
		for _, closer := range []interface{ Close() error }{c, server, l, d} {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Lstat(filepath.Join(dir, "s.sock")); err != nil {
			t.Errorf("the socket did not stay: %v", err)
		}
	}
}

func TestOpenNoDirectory(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an absent directory was opened")
	}
}

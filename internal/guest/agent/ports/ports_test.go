package ports

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23 1 0 100 0 0 10 0
   2: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 24 1 0 100 0 0 10 0
   3: 0100007F:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25 1 0 100 0 0 10 0
`

const table6 = `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
`

func TestParse(t *testing.T) {
	tests := []struct {
		table string
		port  int
		want  string
	}{
		{table, 8080, "[127.0.0.1]"},
		{table, 22, "[0.0.0.0]"},
		{table, 8081, "[]"}, // a connection
		{table, 8082, "[]"}, // after the first connection, where none can be
		{table6, 8080, "[::1 127.0.0.1]"},
		{"", 1, "[]"},
		{"heading\n x y z 0A\n 0: 0100007F:1F90 z 0A\n 0: 01:1F90 z 0A\n", 8080, "[127.0.0.1]"},
	}
	for _, tt := range tests {
		if got := fmt.Sprint(parse(strings.NewReader(tt.table), tt.port)); got != tt.want {
			t.Errorf("port %d: %s, want %s", tt.port, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(table), 8080)
	f.Add([]byte(table6), 8080)
	f.Fuzz(func(t *testing.T, b []byte, port int) {
		if found := parse(bytes.NewReader(b), port); len(found) > maxAddrs {
			t.Errorf("%d addresses", len(found))
		}
	})
}

// TestDialAndWait: services on the loopback, on another address only, and none.
func TestDialAndWait(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.0.0.53", "::1", "0.0.0.0"} {
		t.Run(host, func(t *testing.T) {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
			if err != nil && host == "::1" {
				t.Skipf("no IPv6 here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			port := l.Addr().(*net.TCPAddr).Port
			if err := Wait(t.Context(), port); err != nil {
				t.Error(err)
			}
			c, err := Dial(t.Context(), port)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			_ = l.Close()
			if _, err := Dial(t.Context(), port); !errors.Is(err, ErrRefused) {
				t.Errorf("after its end: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := Wait(ctx, port); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("wait after its end: %v", err)
			}
		})
	}
}

// TestWaitIsTold: a wait that began before the service ends with it.
func TestWaitIsTold(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	done := make(chan error, 1)
	go func() { done <- Wait(t.Context(), addr.Port) }()
	time.Sleep(100 * time.Millisecond)
	if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr.String()); err != nil {
		t.Skip(err) // another program was faster
	}
	defer func() { _ = l.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it was not told")
	}
	if got := targets(addr.Port); got[0] != netip.MustParseAddrPort(addr.String()) {
		t.Errorf("%v", got)
	}
}

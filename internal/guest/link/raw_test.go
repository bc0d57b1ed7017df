package link

import (
	"bytes"
	"net"
	"testing"
)

func TestRaw(t *testing.T) {
	host, guest := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeRaw(guest) }()
	raw := NewRaw(host)

	msg := []byte("ping")
	for range 3 {
		if err := raw.Echo(msg); err != nil || !bytes.Equal(msg, []byte("ping")) {
			t.Fatalf("Echo: %q, %v", msg, err)
		}
	}
	const n = 3*rawChunk + 17
	if err := raw.Send(n); err != nil {
		t.Fatalf("Send: %v", err)
	}
	if err := raw.Receive(n); err != nil {
		t.Fatalf("Receive: %v", err)
	}
	if err := raw.Echo(msg); err != nil || !bytes.Equal(msg, []byte("ping")) {
		t.Fatalf("Echo after bulk: %q, %v", msg, err)
	}
	_ = host.Close()
	if err := <-done; err == nil {
		t.Error("ServeRaw ended without an error on a closed port")
	}
}

package wire

import (
	"bytes"
	"testing"
	"time"
)

// TestDatagram: frames come as they went, a full wire waits, an end wakes everybody.
func TestDatagram(t *testing.T) {
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	left, err := NewDatagram(a)
	if err != nil {
		t.Fatal(err)
	}
	right, err := NewDatagram(b)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), 65534)
	if err := left.WriteFrame([][]byte{big[:14], big[14:]}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 70000)
	if n, err := right.ReadFrame(buf); err != nil || !bytes.Equal(buf[:n], big) {
		t.Errorf("%d bytes, %v", n, err)
	}
	const frames = 500
	written := make(chan error, 1)
	go func() {
		for range frames {
			if err := left.WriteFrame([][]byte{big}); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	select {
	case err := <-written:
		t.Fatalf("nobody reads, and all was written: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for range frames {
		if _, err := right.ReadFrame(buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := right.ReadFrame(buf); ended <- err }()
	time.Sleep(10 * time.Millisecond)
	_ = right.Close()
	if err := <-ended; err == nil {
		t.Error("a read outlives the wire")
	}
	_ = left.Close()
}

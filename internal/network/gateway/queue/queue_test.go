package queue

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// stuck is a guest that does not read until it is told to.
type stuck chan struct{}

// WritePackets implements stack.LinkWriter.
func (s stuck) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	<-s
	return len(pkts.AsSlice()), nil
}

// TestQueue: what waits for a guest that does not read is bounded in frames and in bytes, and is counted down once it reads.
func TestQueue(t *testing.T) {
	for name, c := range map[string]struct{ size, most int }{
		"small": {1500, maxFrames + 256}, // and a batch that is being written
		"large": {64 << 10, maxBytes / (64 << 10)},
	} {
		t.Run(name, func(t *testing.T) {
			guest := make(stuck)
			q := New(guest)
			t.Cleanup(q.Close)
			taken := 0
			for range 3 * maxFrames {
				pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, c.size))})
				if q.WritePacket(pkt) == nil {
					taken++
				}
				pkt.DecRef()
			}
			if taken > c.most || taken < min(c.most, maxFrames)-1 {
				t.Errorf("%d frames of %d bytes wait", taken, c.size)
			}
			close(guest)
			for end := time.Now().Add(10 * time.Second); q.bytes.Load() != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d bytes are left", q.bytes.Load())
				}
			}
		})
	}
}

// Package queue is what waits in a gateway for its guest to read: bounded in frames, and in bytes.
//
// Layer: network, below gateway. It imports none of ours.
package queue

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/qdisc/fifo"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// Frames that wait for the guest to read; more are dropped, as by any router. All that one connection may send at once is
	// among them, in Ethernet's usual segments: what is dropped of that would be sent again and again.
	maxFrames = 1536
	// And so many bytes, which frames of 64 KiB are far sooner.
	maxBytes = 16 << 20
)

// Queue is what waits for the guest to read.
type Queue struct {
	stack.QueueingDiscipline
	bytes atomic.Int64
}

// New makes the queue before a link.
func New(l stack.LinkWriter) *Queue {
	q := &Queue{}
	q.QueueingDiscipline = fifo.New(&drained{l, &q.bytes}, 1, maxFrames)
	return q
}

// WritePacket implements stack.QueueingDiscipline.
func (q *Queue) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	size := int64(pkt.Size())
	if q.bytes.Add(size) > maxBytes {
		q.bytes.Add(-size)
		return &tcpip.ErrNoBufferSpace{}
	}
	err := q.QueueingDiscipline.WritePacket(pkt)
	if err != nil {
		q.bytes.Add(-size)
	}
	return err
}

// drained is the link, behind the queue.
type drained struct {
	to    stack.LinkWriter
	bytes *atomic.Int64
}

// WritePackets implements stack.LinkWriter.
func (d *drained) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	var size int64
	for _, pkt := range pkts.AsSlice() {
		size += int64(pkt.Size())
	}
	defer d.bytes.Add(-size)
	return d.to.WritePackets(pkts)
}

package gateway

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/qdisc/fifo"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// Frames that wait for the guest to read; more are dropped, as by any router. All that one connection may send at once is
	// among them, in Ethernet's usual segments: what is dropped of that would be sent again and again.
	outQueue = 1536
	// And so many bytes, which frames of 64 KiB are far sooner.
	maxOutBytes = 16 << 20
)

// queue is what waits for the guest to read.
type queue struct {
	stack.QueueingDiscipline
	bytes atomic.Int64
}

// newQueue makes the queue before a link.
func newQueue(l stack.LinkWriter) *queue {
	q := &queue{}
	q.QueueingDiscipline = fifo.New(&drained{l, &q.bytes}, 1, outQueue)
	return q
}

// WritePacket implements stack.QueueingDiscipline.
func (q *queue) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	size := int64(pkt.Size())
	if q.bytes.Add(size) > maxOutBytes {
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

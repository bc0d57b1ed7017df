package gateway

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/smolvm/smolvm/internal/network/gateway/frame"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

// link is the stack's end of a wire. It implements stack.LinkEndpoint.
type link struct {
	wire    wire.Wire
	offload wire.Offloader // the same, where it is one
	facts   frame.Link
	mtu     uint32
	// pace, where set, waits until so many bytes may pass.
	paceIn, paceOut func(n int)

	drops [256]atomic.Int64 // by frame.Drop
	lost  atomic.Int64      // frames that could not be written

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
	onClose    func()
}

func newLink(w wire.Wire, facts frame.Link, mtu uint32) *link {
	l := &link{wire: w, facts: facts, mtu: mtu}
	l.offload, _ = w.(wire.Offloader)
	return l
}

// longest is the size of the largest frame.
func (l *link) longest() int {
	if l.offload != nil {
		return wire.MaxFrame
	}
	return frame.HeaderBytes + int(l.mtu)
}

func mac(a [6]byte) tcpip.LinkAddress { return tcpip.LinkAddress(a[:]) }

// read delivers what the guest sends until the wire ends, which is no error when it was closed.
func (l *link) read() error {
	longest := l.longest()
	view := buffer.NewViewSize(longest + 1)
	defer func() { view.Release() }()
	for {
		n, err := l.wire.ReadFrame(view.AsSlice())
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if n > longest { // cut off
			l.drops[frame.Malformed].Add(1)
			continue
		}
		f := view.AsSlice()[:n]
		if !l.admit(f) {
			continue
		}
		if n < copyBelow {
			l.inject(buffer.NewViewWithData(f))
			continue
		}
		view.CapLength(n)
		l.inject(view)
		view = buffer.NewViewSize(longest + 1)
	}
}

// copyBelow is the size from which on a frame keeps the buffer that it was read into. A smaller one would hold far more memory
// than it has bytes, for as long as the stack has it.
const copyBelow = 16 << 10

// deliver hands one frame to the stack if it may see it.
func (l *link) deliver(f []byte) {
	if l.admit(f) {
		l.inject(buffer.NewViewWithData(f))
	}
}

// admit says whether the stack may see a frame, and waits where that comes too fast.
func (l *link) admit(f []byte) bool {
	if d := l.facts.Check(f); d != frame.Pass {
		l.drops[d].Add(1)
		return false
	}
	if l.paceOut != nil {
		l.paceOut(len(f))
	}
	return true
}

// inject hands a frame to the stack, which owns it from here on.
func (l *link) inject(f *buffer.View) {
	l.mu.RLock()
	to := l.dispatcher
	l.mu.RUnlock()
	if to == nil {
		f.Release()
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(f)})
	defer pkt.DecRef()
	eth, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	if !ok {
		return
	}
	e := header.Ethernet(eth)
	pkt.PktType = tcpip.PacketHost
	if e.DestinationAddress() == header.EthernetBroadcastAddress {
		pkt.PktType = tcpip.PacketBroadcast
	}
	to.DeliverNetworkPacket(e.Type(), pkt)
}

// WritePackets implements stack.LinkWriter. It waits for the guest to read; the queue before it is what drops.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	var parts [][]byte
	for _, pkt := range pkts.AsSlice() {
		if l.paceIn != nil {
			l.paceIn(pkt.Size())
		}
		parts = append(parts[:0], pkt.AsSlices()...)
		if err := l.write(pkt, parts); err != nil {
			l.lost.Add(1)
			continue
		}
		n++
	}
	return n, nil
}

func (l *link) write(pkt *stack.PacketBuffer, parts [][]byte) error {
	gso := pkt.GSOOptions
	if l.offload == nil || gso.Type == stack.GSONone {
		return l.wire.WriteFrame(parts)
	}
	o := wire.Offload{ChecksumStart: header.EthernetMinimumSize + gso.L3HdrLen, ChecksumOffset: gso.CsumOffset}
	if pkt.Data().Size() > int(gso.MSS) {
		o.SegmentBytes, o.HeaderBytes = gso.MSS, uint16(pkt.HeaderSize())
	}
	return l.offload.WriteOffload(parts, o)
}

// GSOMaxSize implements stack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return wire.MaxFrame - header.EthernetMinimumSize }

// SupportedGSO implements stack.GSOEndpoint.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.offload == nil {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}

// AddHeader implements stack.LinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{SrcAddr: mac(l.facts.GatewayMAC), DstAddr: mac(l.facts.GuestMAC), Type: pkt.NetworkProtocolNumber})
}

// ParseHeader implements stack.LinkEndpoint.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// MTU implements stack.LinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.LinkEndpoint; the wire's does not change.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.LinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.LinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return mac(l.facts.GatewayMAC) }

// SetLinkAddress implements stack.LinkEndpoint; the card's never changes.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.LinkEndpoint.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	c := stack.CapabilityResolutionRequired
	if l.offload != nil { // the other side may not have made the sums
		c |= stack.CapabilityRXChecksumOffload
	}
	return c
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Wait implements stack.LinkEndpoint.
func (l *link) Wait() {}

// ARPHardwareType implements stack.LinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Close implements stack.LinkEndpoint.
func (l *link) Close() {
	l.mu.Lock()
	done := l.onClose
	l.onClose = nil
	l.mu.Unlock()
	if done != nil {
		done()
	}
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (l *link) SetOnCloseAction(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onClose = f
}

package gateway

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

// lossy is a wire that loses one of every frames that are written to it, as a card's full queue does.
type lossy struct {
	wire.Offloader
	every, written, lost atomic.Int64
}

func (l *lossy) loses() bool {
	if n := l.every.Load(); n == 0 || l.written.Add(1)%n != 0 {
		return false
	}
	l.lost.Add(1)
	return true
}

func (l *lossy) WriteFrame(parts [][]byte) error {
	if l.loses() {
		return nil
	}
	return l.Offloader.WriteFrame(parts)
}

func (l *lossy) WriteOffload(parts [][]byte, o wire.Offload) error {
	if l.loses() {
		return nil
	}
	return l.Offloader.WriteOffload(parts, o)
}

// muchBytes fills all buffers on the way, unless everything is slow.
func muchBytes() int {
	if raceEnabled {
		return 2 << 20
	}
	return 32 << 20
}

// TestLoss: frames to a guest that are lost cost it time and nothing else.
func TestLoss(t *testing.T) {
	for _, mtu := range []int{1500, control.MTU} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			p := newKernelPeer(t, mtu)
			l := &lossy{}
			w := newWorld(t, open(), func(o *Options) {
				_ = o.Wire.Close()
				tap, err := wire.NewTAP(p.fd)
				if err != nil {
					t.Fatal(err)
				}
				l.Offloader = tap
				o.Wire = l
			})
			data := make([]byte, muchBytes())
			_, _ = rand.Read(data)
			w.serve("198.51.100.1:80", func(c net.Conn) { _, _ = c.Write(data) })
			for _, every := range []int64{0, 300, 50} {
				l.every.Store(every)
				l.lost.Store(0)
				c := p.dial(t, "tcp", "198.51.100.1:80")
				begun := time.Now()
				_ = c.SetDeadline(begun.Add(2 * time.Minute))
				got, err := io.ReadAll(c)
				took := time.Since(begun)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("every %d: %d bytes came as %d, %v", every, len(data), len(got), err)
				}
				_ = c.Close()
				t.Logf("one of %d frames lost, %d in all: %v", every, l.lost.Load(), took)
			}
		})
	}
}

// TestNothingResent: a guest that is late with its acknowledgements, as any is whose processor has other work, gets nothing twice,
// and nothing is dropped of what one connection has under way, not where each segment is a frame either.
func TestNothingResent(t *testing.T) {
	for name, how := range map[string]func(fd int) (wire.Wire, error){
		"segments left to it": func(fd int) (wire.Wire, error) {
			tap, err := wire.NewTAP(fd)
			return &late{Offloader: tap}, err
		},
		"each a frame": wire.TakePlain,
	} {
		t.Run(name, func(t *testing.T) {
			p := newKernelPeer(t, 1500)
			w := newWorld(t, open(), func(o *Options) {
				_ = o.Wire.Close()
				var err error
				if o.Wire, err = how(p.fd); err != nil {
					t.Fatal(err)
				}
			})
			size := muchBytes()
			w.serve("198.51.100.1:80", func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
			var resent []uint64
			for range 3 {
				before := w.gateway.stack.Stats().TCP.Retransmits.Value()
				n, err := io.Copy(io.Discard, p.dial(t, "tcp", "198.51.100.1:80"))
				if n != int64(size) || err != nil {
					t.Fatalf("%d bytes came, %v", n, err)
				}
				resent = append(resent, w.gateway.stack.Stats().TCP.Retransmits.Value()-before)
			}
			// A host that lets us wait for a fifth of a second, or the race detector, makes acknowledgements later than any stack waits.
			if slices.Sort(resent); resent[1] != 0 && !raceEnabled {
				t.Errorf("%d segments were sent again, and none was lost", resent)
			}
		})
	}
}

// late is a wire whose other side is heard a little later now and then.
type late struct {
	wire.Offloader
	read int
}

func (l *late) ReadFrame(b []byte) (int, error) {
	n, err := l.Offloader.ReadFrame(b)
	if l.read++; l.read%20 == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	return n, err
}

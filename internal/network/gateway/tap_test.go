package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/need"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

// kernelPeer is a network namespace whose kernel stands for a guest's, behind a TAP.
type kernelPeer struct {
	do chan func() // what runs in it
	fd int         // the TAP's descriptor
}

// newKernelPeer makes one, with the card's MTU. It needs root.
func newKernelPeer(t *testing.T, mtu int) *kernelPeer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace of a thread")
	}
	need.Tool(t, "ip", "apt-get install iproute2")
	if err := unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK); err != nil {
		t.Skipf("no TAP on this machine: /dev/net/tun: %v", err)
	}
	p := &kernelPeer{do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range p.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		close(p.do)
		t.Fatalf("a network namespace: %v", err)
	}
	t.Cleanup(func() { close(p.do) })
	guest, gateway := control.Guest(), control.Gateway().String()
	var err error
	p.in(func() {
		if p.fd, _, err = wire.OpenTAP("eth0"); err != nil {
			return
		}
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"link", "set", "eth0", "address", control.GuestMAC().String(), "mtu", strconv.Itoa(mtu), "up"},
			{"addr", "add", guest.String(), "dev", "eth0"},
			{"route", "add", "default", "via", gateway},
		} {
			if out, rerr := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); rerr != nil {
				err = errors.New(string(out))
				return
			}
		}
	})
	if err != nil {
		t.Fatalf("a TAP: %v", err)
	}
	return p
}

// in runs f in the namespace.
func (p *kernelPeer) in(f func()) {
	done := make(chan struct{})
	p.do <- func() { defer close(done); f() }
	<-done
}

func (p *kernelPeer) dial(t *testing.T, proto, at string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	p.in(func() { c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), proto, at) })
	if err != nil {
		t.Fatalf("the kernel dials %s: %v", at, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestTAP: a kernel behind a TAP, which leaves checksums and segments to us and gets such from us, is served like a guest.
func TestTAP(t *testing.T) {
	for _, mtu := range []int{1500, control.MTU} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			p := newKernelPeer(t, mtu)
			w := newWorld(t, open(), func(o *Options) {
				_ = o.Wire.Close()
				tap, err := wire.Take(p.fd)
				if err != nil {
					t.Fatal(err)
				}
				o.Wire, o.MTU = tap, uint32(mtu)
			})
			w.serve("198.51.100.1:80", func(c net.Conn) {
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
			})
			data := make([]byte, 32<<20)
			_, _ = rand.Read(data)
			c := p.dial(t, "tcp", "198.51.100.1:80")
			go func() {
				_, _ = c.Write(data)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back as %d, %v", len(data), len(got), err)
			}
			q := p.dial(t, "udp", "10.83.0.1:53")
			_ = q.SetDeadline(time.Now().Add(10 * time.Second))
			w.outside.has("a.example.", "198.51.100.1")
			if _, err := q.Write(query(t, "a.example.", 1)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4096)
			n, err := q.Read(b)
			if err != nil || len(unpack(t, b[:n]).Answers) != 1 {
				t.Errorf("a question over UDP: %d bytes, %v", n, err)
			}
			drops := w.gateway.Stats().Frames
			for what := range drops {
				if what != "ipv6" && what != "multicast" && what != "ip protocol" {
					t.Errorf("frames are dropped: %v", drops)
				}
			}
		})
	}
}

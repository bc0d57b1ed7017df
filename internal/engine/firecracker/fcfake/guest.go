package fcfake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/smolvm/smolvm/internal/engine/enginetest"
	"github.com/smolvm/smolvm/internal/guest/link"
)

// bootTime is how long the guest's agent takes to listen: until then connections fail at once, as they do with the driver
// there and nobody behind it.
const bootTime = 50 * time.Millisecond

// serveGuest connects who comes by the socket device to the suite's guest.
func (m *monitor) serveGuest() {
	up := time.Now().Add(bootTime)
	for {
		conn, err := m.vsock.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			if m.fault == "no-driver" {
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			r := bufio.NewReader(conn)
			line, err := r.ReadString('\n')
			if err != nil || line != fmt.Sprintf("CONNECT %d\n", link.VsockPort) || time.Now().Before(up) {
				return
			}
			if _, err := io.WriteString(conn, "OK 1073741824\n"); err == nil {
				_ = enginetest.Serve(&stream{conn, r, m}, &guest{m: m})
			}
		}()
	}
}

// stream is what the guest reads and writes: nothing while the machine is paused.
type stream struct {
	net.Conn
	r *bufio.Reader
	m *monitor
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.m.mu.Lock()
	resumed := s.m.resumed
	s.m.mu.Unlock()
	<-resumed
	return n, err
}

// guest is the suite's, as its kernel would do it.
type guest struct {
	m    *monitor
	once sync.Once
}

func (g *guest) say(line string) { _, _ = fmt.Fprintf(os.Stdout, "[    1.234567] %s\r\n", line) }

// PowerOff implements enginetest.Guest: without a switch, the kernel halts.
func (g *guest) PowerOff() {
	g.say("reboot: Power off not available: System halted instead")
	select {}
}

// Reboot implements enginetest.Guest.
func (g *guest) Reboot() {
	g.say("reboot: Restarting system")
	g.end()
}

// Panic implements enginetest.Guest.
func (g *guest) Panic() {
	g.say("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300")
	g.end()
}

func (g *guest) end() {
	g.once.Do(func() {
		g.m.logf("Vmm is stopping.")
		g.m.done <- 0
	})
	select {}
}

// Print implements enginetest.Guest.
func (g *guest) Print(line string) { _, _ = fmt.Fprintln(os.Stdout, line) }

// Remember implements enginetest.Memory.
func (g *guest) Remember(word string) {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	g.m.word = word
}

// Recall implements enginetest.Memory.
func (g *guest) Recall() string {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	return g.m.word
}

// WriteDrive implements enginetest.Guest.
func (g *guest) WriteDrive(id string, mib int) error {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	d := g.m.drives[id]
	if d == nil {
		return fmt.Errorf("no drive %q", id)
	}
	block := bytes.Repeat([]byte{1}, 1<<20)
	for i := range mib {
		if _, err := d.file.WriteAt(block, int64(i)<<20); err != nil {
			return err
		}
		d.wrote += uint64(len(block))
		d.ops++
	}
	return nil
}

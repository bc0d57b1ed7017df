package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/need"
)

// ends are the two ends of a wire.
type ends struct {
	left, right Wire
	waits       bool // a full one makes the writer wait; else it drops
}

// TestContract: what every wire does.
func TestContract(t *testing.T) {
	for name, open := range map[string]func(*testing.T) ends{"datagram": datagrams, "tap and packet socket": tapAndPacket, "packet socket and tap": packetAndTAP} {
		t.Run(name, func(t *testing.T) {
			if name != "datagram" && !inNamespace(t) {
				return
			}
			t.Run("frames", func(t *testing.T) { testFrames(t, open(t)) })
			t.Run("writers", func(t *testing.T) { testWriters(t, open(t)) })
			t.Run("cut off", func(t *testing.T) { testCut(t, open(t)) })
			t.Run("nobody reads", func(t *testing.T) { testFull(t, open(t)) })
			t.Run("end", func(t *testing.T) { testEnd(t, open(t)) })
		})
	}
}

func datagrams(t *testing.T) ends {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	return ends{left: take(t, a), right: take(t, b), waits: true}
}

// tapAndPacket are a TAP and the packet socket at its card.
func tapAndPacket(t *testing.T) ends {
	t.Helper()
	fd, name, err := OpenTAP("test%d")
	if err != nil {
		t.Fatal(err)
	}
	tap := take(t, fd)
	ip(t, "link", "set", name, "mtu", "65520", "up")
	card, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if fd, err = OpenPacket(card.Index); err != nil {
		t.Fatal(err)
	}
	return ends{left: tap, right: take(t, fd)}
}

func packetAndTAP(t *testing.T) ends {
	t.Helper()
	e := tapAndPacket(t)
	e.left, e.right = e.right, e.left
	return e
}

func take(t *testing.T, fd int) Wire {
	t.Helper()
	w, err := Take(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// inNamespace runs the test again in a process with a network namespace of its own, and there it is true. Its frames are not
// the only ones without: IPv6 is off there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "SMOLVM_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	need.Tool(t, "ip", "apt-get install iproute2")
	if err := unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK); err != nil {
		t.Skipf("no TAP for this user: /dev/net/tun: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; exec /proc/self/fd/3 "$@"`,
		"sh", "-test.run=^"+t.Name()+"$", "-test.timeout=5m")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && os.Geteuid() != 0 && len(out) == 0 {
		t.Skipf("no namespaces for this user: %v", err)
	}
	if err != nil || bytes.Contains(out, []byte("no tests to run")) {
		t.Errorf("in its namespace: %v\n%s", err, out)
	}
	return false
}

// frameOf is a frame of ours: of an experimental type, so that no kernel answers or sends such.
func frameOf(size int, mark uint32) []byte {
	f := bytes.Repeat([]byte{byte(mark)}, size)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	binary.BigEndian.PutUint32(f[14:], mark)
	return f
}

// next reads until a frame of ours came.
func next(t *testing.T, w Wire, buf []byte) []byte {
	t.Helper()
	return nextOf(t, w, buf, 0x88b5)
}

func nextOf(t *testing.T, w Wire, buf []byte, kind uint16) []byte {
	t.Helper()
	for {
		n, err := w.ReadFrame(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 14 && binary.BigEndian.Uint16(buf[12:]) == kind {
			return buf[:n]
		}
	}
}

// testFrames: frames come as they went, both ways, of every size.
func testFrames(t *testing.T, e ends) {
	t.Helper()
	buf := make([]byte, MaxFrame+1)
	for mark, size := range []int{18, 60, 1514, 9000, 65534} {
		for _, way := range [][2]Wire{{e.left, e.right}, {e.right, e.left}} {
			f := frameOf(size, uint32(mark))
			if err := way[0].WriteFrame([][]byte{f[:3], f[3:14], {}, f[14:]}); err != nil {
				t.Fatal(err)
			}
			if got := next(t, way[1], buf); !bytes.Equal(got, f) {
				t.Errorf("%d bytes came as %d, %x…", size, len(got), got[:18])
			}
		}
	}
}

// testWriters: many may write at once, and no frame has parts of another.
func testWriters(t *testing.T, e ends) {
	t.Helper()
	const writers, frames = 4, 50
	var wg sync.WaitGroup
	for mark := range uint32(writers) {
		wg.Go(func() {
			for range frames {
				f := frameOf(1000+int(mark), mark)
				if err := e.left.WriteFrame([][]byte{f[:500], f[500:]}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	buf := make([]byte, MaxFrame+1)
	for range writers * frames {
		f := next(t, e.right, buf)
		if mark := binary.BigEndian.Uint32(f[14:]); !bytes.Equal(f, frameOf(1000+int(mark), mark)) {
			t.Fatalf("a frame of %d bytes is mixed", len(f))
		}
	}
	wg.Wait()
}

// testCut: a frame that is longer than the buffer fills it, and the next one comes whole.
func testCut(t *testing.T, e ends) {
	t.Helper()
	for _, f := range [][]byte{frameOf(2000, 1), frameOf(100, 2)} {
		if err := e.left.WriteFrame([][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1000)
	if got := next(t, e.right, buf); !bytes.Equal(got, frameOf(2000, 1)[:1000]) {
		t.Errorf("%d bytes", len(got))
	}
	if got := next(t, e.right, buf); !bytes.Equal(got, frameOf(100, 2)) {
		t.Errorf("%d bytes", len(got))
	}
}

// testFull: nobody reads, and what is held is bounded: the writer waits, or frames are dropped and it goes on.
func testFull(t *testing.T, e ends) {
	t.Helper()
	const frames = 2000
	f := frameOf(65534, 7)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range frames {
			if err := e.left.WriteFrame([][]byte{f}); err != nil && e.waits {
				t.Error(err)
			}
		}
	}()
	buf := make([]byte, MaxFrame+1)
	if !e.waits {
		<-written
		next(t, e.right, buf)
		return
	}
	select {
	case <-written:
		t.Fatal("nobody reads, and all was written")
	case <-time.After(50 * time.Millisecond):
	}
	for range frames {
		next(t, e.right, buf)
	}
	<-written
}

// testEnd: an end wakes who reads.
func testEnd(t *testing.T, e ends) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, MaxFrame+1)
		for {
			if _, err := e.right.ReadFrame(buf); err != nil {
				return
			}
		}
	}()
	time.Sleep(10 * time.Millisecond)
	_ = e.right.Close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a read outlives the wire")
	}
}

// TestOffload: the kernel finishes what a frame leaves to it: its checksum, and its segments.
func TestOffload(t *testing.T) {
	var o [vnetBytes]byte
	Offload{ChecksumStart: 34, ChecksumOffset: 16, SegmentBytes: 1460, HeaderBytes: 54}.encode(&o)
	var want [vnetBytes]byte
	want[0], want[1] = 1, 1
	for at, v := range map[int]uint16{2: 54, 4: 1460, 6: 34, 8: 16} {
		binary.NativeEndian.PutUint16(want[at:], v)
	}
	if o != want {
		t.Errorf("%x, want %x", o, want)
	}
	Offload{}.encode(&o)
	if o != [vnetBytes]byte{} {
		t.Errorf("a finished frame: %x", o)
	}
}

// segmented is a frame of two segments of TCP, with what it leaves to the other side.
func segmented() ([]byte, Offload) {
	f := make([]byte, 54+2*1460)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	f[22], f[23] = 64, unix.IPPROTO_TCP
	copy(f[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	f[46] = 5 << 4 // the TCP header's length
	copy(f[54:], frameOf(2*1460, 9))
	return f, Offload{ChecksumStart: 34, ChecksumOffset: 16, SegmentBytes: 1460, HeaderBytes: 54}
}

// TestSegmented: a frame of several segments passes whole and is counted on both sides, either way between a TAP and a packet
// socket; where the TAP does without, the kernel cuts it.
func TestSegmented(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	f, o := segmented()
	buf := make([]byte, MaxFrame+1)
	for name, open := range map[string]func(*testing.T) ends{"from a TAP": tapAndPacket, "to a TAP": packetAndTAP} {
		e := open(t)
		left, right := e.left.(Offloader), e.right.(Offloader)
		if err := left.WriteOffload([][]byte{f[:54], f[54:]}, o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := nextOf(t, right, buf, unix.ETH_P_IP); !bytes.Equal(got, f) {
			t.Errorf("%s: %d bytes came", name, len(got))
		}
		if err := left.WriteFrame([][]byte{frameOf(100, 1)}); err != nil {
			t.Fatal(err)
		}
		next(t, right, buf)
		if read, written := left.Segmented(); read != 0 || written != 1 {
			t.Errorf("%s: the writer counts %d and %d", name, read, written)
		}
		if read, written := right.Segmented(); read != 1 || written != 0 {
			t.Errorf("%s: the reader counts %d and %d", name, read, written)
		}
	}
	e := packetAndTAP(t)
	fd, err := unix.FcntlInt(e.right.(*VNet).file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := TakePlain(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if _, ok := plain.(Offloader); ok {
		t.Error("a plain wire takes offloads")
	}
	if err := e.left.(Offloader).WriteOffload([][]byte{f}, o); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		got := nextOf(t, plain, buf, unix.ETH_P_IP)
		if len(got) != 54+1460 || !bytes.Equal(got[54:], f[54+i*1460:][:1460]) {
			t.Errorf("segment %d has %d bytes", i, len(got))
		}
	}
}

// TestTake: what is no wire is refused, with what it is, and stays its owner's.
func TestTake(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := Take(int(f.Fd())); err == nil {
		t.Error("/dev/null is taken for a wire")
	}
	if _, err := Take(1 << 20); err == nil {
		t.Error("nothing is taken for a wire")
	}
	if _, err := NewPacket(int(f.Fd())); err == nil {
		t.Error("/dev/null is taken for a packet socket")
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("it is not its owner's any more: %v", err)
	}
	if os.Geteuid() == 0 {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		if _, err := Take(fd); err == nil || !strings.Contains(err.Error(), "no headers") {
			t.Errorf("a packet socket without headers: %v", err)
		}
	}
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(stream[0]), unix.Close(stream[1]) }()
	if _, err := Take(stream[0]); err == nil {
		t.Error("a stream is taken for a wire: its frames have no bounds")
	}
}

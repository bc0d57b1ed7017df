package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Offload is what a frame leaves to do for the other side.
type Offload struct {
	// ChecksumStart is where the bytes begin that a checksum is to be made of, and ChecksumOffset where it goes, counted from
	// there. The sum of the pseudo header stands there already. 0: the checksum is right.
	ChecksumStart, ChecksumOffset uint16
	// SegmentBytes is how much payload each segment shall have that this one, TCP over IPv4, is to be cut into, and HeaderBytes
	// are its headers. 0: it is one segment.
	SegmentBytes, HeaderBytes uint16
}

// Offloader is a wire whose frames may be larger than its MTU and without checksums, both ways. What a checksum is to find is
// damage on the way; here is no way to speak of.
type Offloader interface {
	Wire
	// WriteOffload is WriteFrame for a frame that is not finished.
	WriteOffload(parts [][]byte, o Offload) error
	// Segmented counts the frames that were several segments of TCP in one.
	Segmented() (read, written int64)
}

// MaxFrame is the largest frame that an Offloader carries, header and all, which is how cards count it.
const MaxFrame = 65535

// Of struct virtio_net_hdr, which stands before each frame, in the machine's own byte order.
const (
	vnetBytes      = 10
	vnetNeedsSum   = 1
	vnetSegmentTCP = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	vnetECN        = 0x80
)

// vnetOffloads are what the other side may leave to us: checksums, and segments larger than the MTU.
const vnetOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4

// VNet is a wire whose frames have a virtio_net_hdr in front: the descriptor of a TAP, or a packet socket at a TAP whose
// descriptor a monitor has.
type VNet struct {
	file  *os.File
	conn  syscall.RawConn
	read  [vnetBytes]byte
	reads [2][]byte

	mu     sync.Mutex // of what writes
	wrote  [vnetBytes]byte
	writes [][]byte

	manyRead, manyWritten atomic.Int64
}

// OpenTAP makes a TAP in the network namespace of the calling thread, or opens one that is there and that nobody holds. The
// kernel picks the name where there is a %d in it. It is down, and without an address.
func OpenTAP(name string) (fd int, got string, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, "", fmt.Errorf("tap: /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		_ = unix.Close(fd)
		return -1, "", fmt.Errorf("tap %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		_ = unix.Close(fd)
		return -1, "", fmt.Errorf("tap %q: %w", name, err)
	}
	return fd, req.Name(), nil
}

// OpenPacket opens a packet socket at a card of the calling thread's network namespace, which sees what the card's other side
// sends and is heard there.
func OpenPacket(card int) (fd int, err error) {
	// Protocol 0 hears nothing before it is bound to the card.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	for _, o := range [][2]int{{unix.PACKET_VNET_HDR, 1}, {unix.PACKET_IGNORE_OUTGOING, 1}} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o[0], o[1]); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("packet socket: option %d: %w", o[0], err)
		}
	}
	const everything = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8) // in the network's byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: card}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("packet socket at card %d: %w", card, err)
	}
	return fd, nil
}

// NewTAP takes over the descriptor of a TAP.
func NewTAP(fd int) (*VNet, error) {
	req, err := unix.NewIfreq("x") // it only carries the answer
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, req)
	}
	if err != nil {
		return nil, fmt.Errorf("wire: the descriptor is no TAP: %w", err)
	}
	const want = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if flags := req.Uint16(); flags&want != want || flags&unix.IFF_TUN != 0 {
		return nil, fmt.Errorf("wire: TAP %s has the flags %#x, without all of %#x", req.Name(), flags, want)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetBytes); err != nil {
		return nil, fmt.Errorf("wire: TAP %s: header: %w", req.Name(), err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, vnetOffloads); err != nil {
		return nil, fmt.Errorf("wire: TAP %s: offloads: %w", req.Name(), err)
	}
	return newVNet(fd)
}

// NewPacket takes over a packet socket that OpenPacket opened.
func NewPacket(fd int) (*VNet, error) {
	on, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR)
	switch {
	case err != nil:
		return nil, fmt.Errorf("wire: the descriptor is no packet socket: %w", err)
	case on != 1:
		return nil, errors.New("wire: the packet socket's frames have no headers")
	}
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], packetBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], packetBuffer)
		}
	}
	return newVNet(fd)
}

// packetBuffer is what a packet socket should hold: what does not fit is lost, and costs a retransmission.
const packetBuffer = 8 << 20

func newVNet(fd int) (*VNet, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wire")
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("wire: %w", err)
	}
	return &VNet{file: f, conn: conn}, nil
}

// Take makes a wire of whatever kind of descriptor fd is.
func Take(fd int) (Wire, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("wire: descriptor %d: %w", fd, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return NewTAP(fd)
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("wire: descriptor %d: %w", fd, err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case err != nil:
		return nil, fmt.Errorf("wire: descriptor %d: %w", fd, err)
	case domain == unix.AF_PACKET && kind == unix.SOCK_RAW:
		return NewPacket(fd)
	case domain == unix.AF_UNIX && kind == unix.SOCK_DGRAM:
		return NewDatagram(fd)
	}
	return nil, fmt.Errorf("wire: descriptor %d is a socket of domain %d and type %d, whose frames have no bounds", fd, domain, kind)
}

// TakePlain is Take for a wire that does without offloads. Where fd is a packet socket, the other side has to be told.
func TakePlain(fd int) (Wire, error) {
	w, err := Take(fd)
	if err != nil {
		return nil, err
	}
	if v, ok := w.(*VNet); ok {
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil { // a TAP
			if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
				_ = v.Close()
				return nil, fmt.Errorf("wire: TAP: offloads: %w", err)
			}
		}
		return struct{ Wire }{v}, nil
	}
	return w, nil
}

// ReadFrame implements Wire. A frame of up to MaxFrame bytes may come.
func (v *VNet) ReadFrame(buf []byte) (n int, err error) {
	v.reads = [2][]byte{v.read[:], buf}
	rerr := v.conn.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Readv(int(fd), v.reads[:])
			// A card that is down has nothing to say yet.
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENETDOWN) {
				break
			}
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	v.reads[1] = nil
	switch {
	case rerr != nil:
		return 0, rerr
	case err != nil:
		return 0, err
	}
	if n > vnetBytes && v.read[1]&^vnetECN == vnetSegmentTCP {
		v.manyRead.Add(1)
	}
	return max(n-vnetBytes, 0), nil
}

// WriteFrame implements Wire.
func (v *VNet) WriteFrame(parts [][]byte) error { return v.WriteOffload(parts, Offload{}) }

// WriteOffload implements Offloader.
func (v *VNet) WriteOffload(parts [][]byte, o Offload) (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o.encode(&v.wrote)
	v.writes = append(append(v.writes[:0], v.wrote[:]), parts...)
	werr := v.conn.Write(func(fd uintptr) bool {
		for {
			_, err = unix.Writev(int(fd), v.writes)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	clear(v.writes)
	if werr != nil {
		return werr
	}
	if err == nil && o.SegmentBytes != 0 {
		v.manyWritten.Add(1)
	}
	return err
}

// Segmented implements Offloader.
func (v *VNet) Segmented() (read, written int64) { return v.manyRead.Load(), v.manyWritten.Load() }

// Close implements Wire.
func (v *VNet) Close() error { return v.file.Close() }

func (o Offload) encode(b *[vnetBytes]byte) {
	*b = [vnetBytes]byte{}
	if o.ChecksumStart != 0 {
		b[0] = vnetNeedsSum
		binary.NativeEndian.PutUint16(b[6:], o.ChecksumStart)
		binary.NativeEndian.PutUint16(b[8:], o.ChecksumOffset)
	}
	if o.SegmentBytes != 0 {
		b[1] = vnetSegmentTCP
		binary.NativeEndian.PutUint16(b[2:], o.HeaderBytes)
		binary.NativeEndian.PutUint16(b[4:], o.SegmentBytes)
	}
}

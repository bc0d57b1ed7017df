package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// TAP is a network card of the host's for the program, which opens it by its name. It lies in the program's own network
// namespace, without an address: what it sends is heard by a packet socket and by nobody else.
type TAP struct {
	Name string
	MTU  int
	// Socket is which of Plan.Files is a unix socket; over it goes the packet socket, see ReceiveFile.
	Socket int
}

// TunDevice is where TAPs are made.
const TunDevice = "/dev/net/tun"

// makeTAP makes the card, and hands its other end out. Where we are not root it needs what attributes gave us for it, which
// is given up here.
func (c *confiner) makeTAP() (err error) {
	t := c.plan.TAP
	if t == nil {
		return nil
	}
	if c.plan.Refused != "" {
		return fmt.Errorf("a network card needs a network namespace, which is refused: %s", c.plan.Refused)
	}
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now == c.plan.ParentNS["net"] {
		return errors.New("a network card needs a network namespace of its own")
	}
	owner := int(c.plan.UID)
	if owner == 0 {
		owner = os.Getuid()
	}
	index, err := openTAP(t, owner)
	if err != nil {
		return fmt.Errorf("make the network card %s: %w", t.Name, err)
	}
	fd, err := openPacket(index)
	if err != nil {
		return fmt.Errorf("the other end of the network card %s: %w", t.Name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	to := FirstFile + t.Socket
	if err := unix.Sendmsg(to, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("hand over the other end of the network card %s: %w", t.Name, err)
	}
	unix.CloseOnExec(to)
	return nil
}

// openTAP makes a card that stays when its descriptor is closed, for as long as its namespace, and returns its number.
func openTAP(t *TAP, owner int) (index int, err error) {
	fd, err := unix.Open(TunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: TunDevice, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(t.Name)
	if err != nil {
		return 0, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return 0, os.NewSyscallError("TUNSETIFF", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner); err != nil {
		return 0, os.NewSyscallError("TUNSETOWNER", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return 0, os.NewSyscallError("TUNSETPERSIST", err)
	}
	// No word of the kernel's own goes to the guest: no IPv6, no ARP. A kernel without IPv6 has no such file.
	quiet := filepath.Join("/proc/sys/net/ipv6/conf", t.Name, "disable_ipv6")
	if err := os.WriteFile(quiet, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(sock) }()
	req.SetUint32(uint32(t.MTU))
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, req); err != nil {
		return 0, fmt.Errorf("MTU %d: %w", t.MTU, err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_NOARP)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req); err != nil {
		return 0, os.NewSyscallError("SIOCSIFFLAGS", err)
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFINDEX, req); err != nil {
		return 0, os.NewSyscallError("SIOCGIFINDEX", err)
	}
	return int(req.Uint32()), nil
}

// openPacket opens a packet socket at a card: frames with a virtio_net_hdr in front, those that the card's other side sends.
func openPacket(card int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // protocol 0 hears nothing yet
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, o := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err == nil {
			err = os.NewSyscallError("setsockopt "+strconv.Itoa(o), unix.SetsockoptInt(fd, unix.SOL_PACKET, o, 1))
		}
	}
	if err == nil {
		const everything = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8) // in the network's byte order
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: card}))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// tapCapabilities are what making a card takes, in a user namespace of one's own.
func tapCapabilities() []uintptr { return []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} }

// ReceiveFile takes the descriptor that a launcher sends over a socket.
func ReceiveFile(conn *net.UnixConn, name string) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%s: no descriptor came: %w", name, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%s: no descriptor came: %w", name, err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), name), nil
}

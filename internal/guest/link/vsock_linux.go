package link

import (
	"fmt"
	"net"

	"github.com/mdlayher/vsock"
)

// On an engine with a native guest socket the agent is dialled by the host there, and no frames are needed. These are what
// both sides know.
const (
	// VsockPort is where the agent listens.
	VsockPort = 1024
	// GuestCID is the guest's address; each has a device of its own, so all may have the same.
	GuestCID = 3

	// VsockParam on the guest kernel's command line says that the host comes by vsock.
	VsockParam = "smolvm.link=vsock"
	// DrivesParam before a list of ids, by commas, names the drives in their order, where the guest cannot see their serials.
	DrivesParam = "smolvm.drives="
)

// hostCID is the host's address; CID 1 is the guest itself.
const hostCID = 2

// ListenVsock listens for the host. Others, the guest's own programs by the loopback, are hung up on.
func ListenVsock() (net.Listener, error) {
	l, err := vsock.Listen(VsockPort, nil)
	if err != nil {
		return nil, fmt.Errorf("link: listen for the host on vsock port %d: %w", VsockPort, err)
	}
	return hostOnly{l}, nil
}

// hostOnly is a listener that lets only the host in.
type hostOnly struct{ net.Listener }

// Accept implements net.Listener.
func (l hostOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*vsock.Addr); ok && a.ContextID == hostCID {
			return c, nil
		}
		_ = c.Close()
	}
}

package boot

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/proto"
)

// identify sets the hostname and the machine's id.
func identify(id *proto.Identity) error {
	if id == nil {
		return nil
	}
	return errors.Join(
		setHostname(id.GetHostname()),
		setMachineID(id.GetMachineId()),
		writeHosts("/etc/hosts", id.GetHostname()),
	)
}

// newIdentity makes a restored guest who it is: a part of another machine's identity left over would be a lie.
func newIdentity(id *proto.Identity) error {
	if id.GetHostname() == "" || len(id.GetMachineId()) != 16 {
		return fmt.Errorf("a hostname %q and a machine id of %d bytes are no identity", id.GetHostname(), len(id.GetMachineId()))
	}
	if err := identify(id); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

func setHostname(name string) error {
	if name == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	return update("/etc/hostname", name+"\n", 0o644)
}

func setMachineID(id []byte) error {
	if len(id) == 0 {
		return nil
	}
	return update("/etc/machine-id", hex.EncodeToString(id)+"\n", 0o444)
}

// update writes a file unless it has that content. It replaces it in one step.
func update(path, content string, mode os.FileMode) error {
	if old, err := readPlain(path); err == nil && string(old) == content {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".smolvm-new"
	if err := os.WriteFile(tmp, []byte(content), mode); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}

// hostsMark ends the line of the hosts file that is ours; the others are the user's.
const hostsMark = "# the name of this machine"

func writeHosts(path, name string) error {
	old, err := readPlain(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return update(path, hosts(string(old), name), 0o644)
}

func hosts(old, name string) string {
	if old == "" {
		old = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
	}
	var b strings.Builder
	for line := range strings.Lines(old) {
		if !strings.HasSuffix(strings.TrimSpace(line), hostsMark) {
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	if name != "" {
		b.WriteString("127.0.1.1 " + name + " " + hostsMark + "\n")
	}
	return b.String()
}

// authorize lets the keys log in as root.
func authorize(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	const dir = "/root/.ssh"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, "authorized_keys")
	old, err := readPlain(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	content := string(old)
	for _, k := range keys {
		if strings.ContainsAny(k, "\n\r") {
			return errors.New("an authorized key has more than one line")
		}
		if !strings.Contains("\n"+content, "\n"+k+"\n") {
			content = strings.TrimSuffix(content, "\n")
			if content != "" {
				content += "\n"
			}
			content += k + "\n"
		}
	}
	return update(path, content, 0o600)
}

// network brings loopback up and, where there is one, the card.
func (s *System) network(n *proto.Network) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer func() { _ = unix.Close(sock) }()
	if err := linkUp(sock, "lo"); err != nil {
		return fmt.Errorf("network: lo: %w", err)
	}
	if n == nil {
		return nil
	}
	if err := configureCard(sock, "eth0", n); err != nil {
		return fmt.Errorf("network: eth0: %w", err)
	}
	if n.GetDns() == "" {
		return nil
	}
	return update("/etc/resolv.conf", "nameserver "+n.GetDns()+"\n", 0o644)
}

func linkUp(sock int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, ifr)
}

func configureCard(sock int, name string, n *proto.Network) error {
	prefix, err := netip.ParsePrefix(n.GetAddress())
	if err != nil || !prefix.Addr().Is4() {
		return fmt.Errorf("address %q is no IPv4 prefix", n.GetAddress())
	}
	gateway, err := netip.ParseAddr(n.GetGateway())
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("gateway %q is no IPv4 address", n.GetGateway())
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if mtu := n.GetMtu(); mtu > 0 {
		ifr.SetUint32(mtu)
		if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, ifr); err != nil {
			return fmt.Errorf("mtu: %w", err)
		}
	}
	mask := ^uint32(0) << (32 - prefix.Bits())
	for _, step := range []struct {
		req uint
		ip  [4]byte
	}{
		{unix.SIOCSIFADDR, prefix.Addr().As4()},
		{unix.SIOCSIFNETMASK, [4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}}, //nolint:gosec // its bytes
	} {
		if err := ifr.SetInet4Addr(step.ip[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(sock, step.req, ifr); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	if err := linkUp(sock, name); err != nil {
		return err
	}
	return defaultRoute(sock, gateway.As4())
}

// rtEntry is the kernel's struct rtentry on 64-bit machines.
type rtEntry struct {
	_                     uint64
	dst, gateway, genmask unix.RawSockaddrInet4
	flags                 uint16
	_                     [6]byte
	_                     [72]byte
}

func defaultRoute(sock int, gateway [4]byte) error {
	r := rtEntry{flags: unix.RTF_UP | unix.RTF_GATEWAY}
	r.dst.Family, r.gateway.Family, r.genmask.Family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	r.gateway.Addr = gateway
	if err := ioctl(uintptr(sock), unix.SIOCADDRT, &r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

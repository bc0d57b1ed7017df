package api

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	// DefaultAddress is where ports are published that name no address: only this host's own users reach them.
	DefaultAddress = "127.0.0.1"
	// MaxPorts is how many ports one VM may publish.
	MaxPorts = 64
	// GuestSSH is the port of the guest's sshd.
	GuestSSH = 22
)

// Port is a TCP port of a VM that is published on this host.
type Port struct {
	Address   string `json:"address"`   // of this host; default 127.0.0.1
	HostPort  int    `json:"host_port"` // 0: any that is free, when the VM starts
	GuestPort int    `json:"guest_port"`
	// Any says that HostPort is one that was free: a start that finds it taken chooses another one.
	Any bool `json:"any,omitempty"`
}

// ParsePort reads [ADDRESS:]HOST:GUEST, or GUEST alone, which is 0:GUEST. IPv6 addresses are in brackets.
func ParsePort(text string) (Port, error) {
	wrong := func(why string) error {
		return errdefs.Invalid.Errorf("port: %q: %s", text, why).
			WithRemedy("HOST:GUEST such as 8080:80, GUEST for any free port of this host, or ADDRESS:HOST:GUEST such as 0.0.0.0:8080:80 or [::1]:8080:80")
	}
	rest, protocol, given := strings.Cut(text, "/")
	if given && protocol != "tcp" {
		return Port{}, wrong("only TCP ports are published")
	}
	var p Port
	if at := strings.LastIndexByte(rest, ']'); at >= 0 {
		if !strings.HasPrefix(rest, "[") || !strings.HasPrefix(rest[at+1:], ":") || strings.Count(rest[at+1:], ":") != 2 {
			return Port{}, wrong("an address in brackets is followed by :HOST:GUEST")
		}
		p.Address, rest = rest[1:at], rest[at+2:]
		if a, err := netip.ParseAddr(p.Address); err != nil || !a.Is6() {
			return Port{}, wrong("in the brackets is no IPv6 address")
		}
	} else if strings.Count(rest, ":") == 2 {
		p.Address, rest, _ = strings.Cut(rest, ":")
		if _, err := netip.ParseAddr(p.Address); err != nil {
			return Port{}, wrong("in front of the ports is no IP address")
		}
	}
	host, guest, both := strings.Cut(rest, ":")
	if !both {
		host, guest = "0", rest
	}
	var ok, also bool
	if p.HostPort, ok = portNumber(host, 0); !ok {
		return Port{}, wrong("the host's port is not within 0 to 65535")
	}
	if p.GuestPort, also = portNumber(guest, 1); !also {
		return Port{}, wrong("the guest's port is not within 1 to 65535")
	}
	p = p.WithDefaults()
	return p, p.Validate()
}

func portNumber(text string, low int) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil && int(n) >= low && text[0] != '+'
}

// WithDefaults names the address, in the one form that it has, and marks a port that may be any.
func (p Port) WithDefaults() Port {
	if p.Address == "" {
		p.Address = DefaultAddress
	}
	if a, err := netip.ParseAddr(p.Address); err == nil {
		p.Address = a.Unmap().String()
	}
	if p.HostPort == 0 {
		p.Any = true
	}
	return p
}

// PortsWithDefaults returns ports with their defaults.
func PortsWithDefaults(ports []Port) []Port {
	var out []Port
	for _, p := range ports {
		out = append(out, p.WithDefaults())
	}
	return out
}

// Host is the address and port on this host.
func (p Port) Host() string {
	a, err := netip.ParseAddr(p.Address)
	if err != nil {
		return p.Address + ":" + strconv.Itoa(p.HostPort)
	}
	return netip.AddrPortFrom(a, uint16(p.HostPort)).String() //nolint:gosec // Validate has seen it
}

// String is the port as ParsePort reads it.
func (p Port) String() string { return p.Host() + ":" + strconv.Itoa(p.GuestPort) }

// Validate refuses what can be no published port.
func (p Port) Validate() error {
	a, err := netip.ParseAddr(p.Address)
	switch {
	case p.Address == "":
	case err != nil:
		return errdefs.Invalid.Errorf("port: %q is no IP address", p.Address).WithRemedy("an address of this host: ip address")
	case a.Zone() != "" || a.IsMulticast():
		return errdefs.Invalid.Errorf("port: nothing can be published on %s", p.Address).WithRemedy("an address of this host: ip address")
	}
	if p.HostPort < 0 || p.HostPort > 65535 {
		return errdefs.Invalid.Errorf("port: the host's port %d is not within 0 to 65535", p.HostPort)
	}
	if p.GuestPort < 1 || p.GuestPort > 65535 {
		return errdefs.Invalid.Errorf("port: the guest's port %d is not within 1 to 65535", p.GuestPort)
	}
	return nil
}

// ValidatePorts refuses ports that cannot be published together.
func ValidatePorts(ports []Port) error {
	if len(ports) > MaxPorts {
		return errdefs.Invalid.Errorf("ports: %d are more than %d", len(ports), MaxPorts)
	}
	for i, p := range ports {
		if err := p.Validate(); err != nil {
			return err
		}
		for _, q := range ports[:i] {
			if p.Clashes(q) {
				return errdefs.Invalid.Errorf("ports: %s and %s are the same port of this host", q, p)
			}
		}
	}
	return nil
}

// SelectPort finds a published port: by its numbers and its address, by its numbers alone where no address is named, or with
// HostPort 0 by the guest's.
func SelectPort(ports []Port, which Port) (int, error) {
	which = which.WithDefaults()
	var found []int
	for i, p := range ports {
		switch {
		case p.GuestPort != which.GuestPort || which.HostPort != 0 && p.HostPort != which.HostPort:
		case which.HostPort != 0 && p.Address == which.Address:
			return i, nil
		case which.HostPort == 0 || which.Address == DefaultAddress:
			found = append(found, i)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, errdefs.NotFound.Errorf("port: no such port is published: %s", which.short())
	}
	var names []string
	for _, i := range found {
		names = append(names, ports[i].String())
	}
	return 0, errdefs.Invalid.Errorf("port: %s may be %s", which.short(), strings.Join(names, " or ")).WithRemedy("name one of these")
}

// short is a port as one names it who looks for it.
func (p Port) short() string {
	if p.HostPort == 0 {
		return strconv.Itoa(p.GuestPort)
	}
	return p.String()
}

// Clashes reports whether two ports want the same one of the host.
func (p Port) Clashes(q Port) bool {
	if p.HostPort == 0 || p.HostPort != q.HostPort {
		return false
	}
	a, aerr := netip.ParseAddr(p.WithDefaults().Address)
	b, berr := netip.ParseAddr(q.WithDefaults().Address)
	if aerr != nil || berr != nil || a.Is4() != b.Is4() {
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

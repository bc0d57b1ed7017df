// Package publish makes TCP ports of a VM ports of this host: it listens, and gives each connection to what reaches the guest.
// Its listeners belong to the supervisor's process and go with it.
//
// Layer: part of network, below supervisor and lifecycle. It may import api, errdefs.
package publish

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Listen takes a port of this host, and returns it with the number that it has. One that may be any and is taken is replaced
// by another one; any other that is taken is class already_exists.
func Listen(ctx context.Context, p api.Port) (*net.TCPListener, api.Port, error) {
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return nil, p, err
	}
	l, err := listen(ctx, p)
	if err != nil && p.Any && p.HostPort != 0 {
		p.HostPort = 0
		l, err = listen(ctx, p)
	}
	if err != nil {
		return nil, p, refused(p, err)
	}
	p.HostPort = l.Addr().(*net.TCPAddr).Port
	return l, p, nil
}

// Take takes all of a list, as files that another process may get, or none. The ports have their numbers.
func Take(ctx context.Context, ports []api.Port) (files []*os.File, got []api.Port, err error) {
	defer func() {
		if err != nil {
			Drop(files)
			files, got = nil, nil
		}
	}()
	for _, p := range ports {
		l, p, err := Listen(ctx, p)
		if err != nil {
			return files, got, err
		}
		f, err := l.File()
		_ = l.Close() // f is the same one
		if err != nil {
			return files, got, refused(p, err)
		}
		files, got = append(files, f), append(got, p)
	}
	return files, got, nil
}

// Drop closes what was taken.
func Drop(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// listen binds one family only: [::] does not take the port of 0.0.0.0 too.
func listen(ctx context.Context, p api.Port) (*net.TCPListener, error) {
	network := "tcp4"
	if a := net.ParseIP(p.Address); a.To4() == nil {
		network = "tcp6"
	}
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	l, err := c.Listen(ctx, network, net.JoinHostPort(p.Address, strconv.Itoa(p.HostPort)))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// refused says why a port cannot be had, and what helps.
func refused(p api.Port, err error) error {
	class, remedy := errdefs.Host, ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		// The cause says no more than this.
		return errdefs.AlreadyExists.Errorf("port %d of %s is taken on this host", p.HostPort, p.Address).
			WithRemedy("ss -ltnp 'sport = :%d' and smolvm port ls show by whom; %d as GUEST alone takes any free port", p.HostPort, p.GuestPort)
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		class, remedy = errdefs.Denied, "a port from 1024 on; the administrator changes that by sysctl net.ipv4.ip_unprivileged_port_start"
	case errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT):
		class, remedy = errdefs.Invalid, "an address of this host: ip address"
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		class, remedy = errdefs.Exhausted, "ulimit -n"
	}
	return class.Errorf("publish port %d on %s: %w", p.GuestPort, p.Host(), err).WithRemedy("%s", remedy)
}

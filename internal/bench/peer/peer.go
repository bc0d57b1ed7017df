// Package peer are network namespaces whose kernel stands for a guest's, each behind a program that gives it the network: our
// gateway, or one that it is compared with.
//
// Layer: part of bench. It may import supervisor/uplink, network/gateway/wire, network, network/control, api, errdefs,
// internal/sys.
package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
	"github.com/smolvm/smolvm/internal/supervisor/uplink"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
	"github.com/smolvm/smolvm/internal/sys/tail"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// Card is what a namespace has for a network card.
type Card struct {
	MTU int // 0 = that of VMs
	// Packet has the gateway work by a packet socket at the card's other end, as it does behind Firecracker's; else it is a TAP,
	// whose descriptor the gateway has.
	Packet bool
	// Plain has the gateway leave no segments and checksums to the card, nor take such from it. Not with Packet.
	Plain bool
}

// Peer is a namespace with a network.
type Peer struct {
	// Host is the address under which it finds the host's loopback.
	Host netip.Addr
	// PID is the process that gives it the network: the gateway, or another program.
	PID func() int
	// Authority (DER) is what it trusts where the gateway looks into connections, and Stats are the gateway's counters.
	Authority []byte
	Stats     func(context.Context) (control.Stats, error)

	do   chan func()
	path string // of the namespace
	undo undo.Stack
}

// startLimit is how long a program may take to give a namespace its network.
const startLimit = 15 * time.Second

// newPeer makes a namespace without any card but its loopback.
func newPeer() (*Peer, error) {
	p := &Peer{do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and with it the namespace end with this
		p.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range p.do {
			f()
		}
	}()
	err := <-ready
	p.undo.Add(func() { close(p.do) })
	if err == nil {
		err = p.ip("link", "set", "lo", "up")
	}
	if err != nil {
		p.Close()
		return nil, errdefs.Host.Errorf("a network namespace: %w", err)
	}
	return p, nil
}

// Close ends the program and the namespace.
func (p *Peer) Close() { p.undo.Run() }

// in runs f in the namespace.
func (p *Peer) in(f func()) {
	done := make(chan struct{})
	p.do <- func() { defer close(done); f() }
	<-done
}

func (p *Peer) ip(args ...string) (err error) {
	p.in(func() {
		var out []byte
		if out, err = exec.CommandContext(context.Background(), "ip", args...).CombinedOutput(); err != nil { //nolint:gosec,forbidigo // ours, and short
			err = fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, excerpt.Printable(string(out)))
		}
	})
	return err
}

// Dial connects from the namespace to a port of the host's loopback.
func (p *Peer) Dial(ctx context.Context, port string) (net.Conn, error) {
	return p.dial(ctx, "tcp", net.JoinHostPort(p.Host.String(), port))
}

func (p *Peer) dial(ctx context.Context, proto, at string) (c net.Conn, err error) {
	p.in(func() { c, err = (&net.Dialer{Timeout: startLimit}).DialContext(ctx, proto, at) })
	return c, err
}

// Gateway makes a namespace behind our gateway; dir is for its files. It reaches one port of the host's loopback.
func Gateway(ctx context.Context, dir, port string, card Card, log *slog.Logger) (*Peer, error) {
	p, err := Behind(ctx, dir, card, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: network.HostName, Ports: []string{port}},
	}}, log)
	if err != nil {
		return nil, err
	}
	if p.Host, err = p.Lookup(ctx, network.HostName); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Lookup asks the gateway for a name's address.
func (p *Peer) Lookup(ctx context.Context, name string) (netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, proto, _ string) (net.Conn, error) {
		return p.dial(ctx, proto, netip.AddrPortFrom(control.Gateway(), 53).String())
	}}
	found, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return netip.Addr{}, errdefs.Network.Errorf("the gateway's answer: %w", err)
	}
	return found[0].Unmap(), nil
}

// DialAddr connects from the namespace to an address.
func (p *Peer) DialAddr(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	return p.dial(ctx, "tcp", at.String())
}

// Behind makes a namespace behind our gateway, under a policy; dir is for its files.
func Behind(ctx context.Context, dir string, card Card, policy api.NetworkPolicy, log *slog.Logger) (_ *Peer, err error) {
	p, err := newPeer()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	card.MTU = cmp.Or(card.MTU, control.MTU)
	fd, err := p.card(card)
	if err != nil {
		return nil, errdefs.Host.Errorf("a network card: %w", err)
	}
	up, err := uplink.Start(ctx, uplink.Options{Names: filepath.Join(dir, "names.jsonl"), Wire: os.NewFile(uintptr(fd), "wire"), Plain: card.Plain, Log: log}) //nolint:gosec // descriptors are small
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	p.undo.Add(func() { _ = up.Close() })
	p.Authority, p.PID, p.Stats = up.Authority(), up.PID, up.Stats
	if err := up.SetPolicy(ctx, policy); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"link", "set", "eth0", "address", control.GuestMAC().String(), "mtu", strconv.Itoa(card.MTU), "up"},
		{"addr", "add", control.Guest().String(), "dev", "eth0"},
		{"route", "add", "default", "via", control.Gateway().String()},
	} {
		if err := p.ip(args...); err != nil {
			return nil, errdefs.Host.Errorf("the network card: %w", err)
		}
	}
	return p, nil
}

// card makes eth0, and returns what its other side is heard and spoken to by.
func (p *Peer) card(c Card) (fd int, err error) {
	if !c.Packet {
		p.in(func() { fd, _, err = wire.OpenTAP("eth0") })
		return fd, err
	}
	for _, args := range [][]string{
		{"link", "add", "eth0", "type", "veth", "peer", "name", "wire0"},
		{"link", "set", "wire0", "arp", "off", "mtu", strconv.Itoa(c.MTU), "up"},
	} {
		if err := p.ip(args...); err != nil {
			return -1, err
		}
	}
	p.in(func() {
		var far *net.Interface
		if far, err = net.InterfaceByName("wire0"); err == nil {
			fd, err = wire.OpenPacket(far.Index)
		}
	})
	return fd, err
}

// Slirp makes a namespace behind slirp4netns.
func Slirp(ctx context.Context, mtu int) (*Peer, error) {
	return program(ctx, netip.AddrFrom4([4]byte{10, 0, 2, 2}), func(path string) []string {
		return []string{"slirp4netns", "--configure", "--mtu=" + strconv.Itoa(mtu), "--netns-type=path", path, "tap0"}
	}, nil)
}

// Pasta makes a namespace behind pasta. The host's loopback is where its gateway would be. Not every pasta may join a namespace of
// root's, so it makes one of its own, and the peer's thread joins that. What keeps it open ends with pasta, and in an hour.
func Pasta(ctx context.Context, mtu int) (*Peer, error) {
	return program(ctx, netip.AddrFrom4([4]byte{10, 0, 2, 2}), func(string) []string {
		return []string{
			"pasta", "--foreground", "--quiet", "--runas", "0", "--config-net", "--mtu", strconv.Itoa(mtu), "--address", "10.0.2.15", "--netmask", "24",
			"--gateway", "10.0.2.2", "--ns-ifname", "tap0", "--ipv4-only", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
			"--", "setpriv", "--pdeathsig", "KILL", "sleep", "3600",
		}
	}, (*Peer).joinChild)
}

// program makes a namespace that a program gives a network of 10.0.2.0/24. join, if there is one, is tried until the peer is
// in the namespace that the program made.
func program(ctx context.Context, host netip.Addr, argv func(path string) []string, join func(*Peer, int) bool) (*Peer, error) {
	p, err := newPeer()
	if err != nil {
		return nil, err
	}
	p.Host = host
	var said tail.Buffer
	args := argv(p.path)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // ours
	cmd.Env, cmd.Stdout, cmd.Stderr = child.Environ(), &said, &said
	cmd.WaitDelay = time.Second // what it leaves behind may have its outputs
	c, err := child.Start(cmd)
	if err != nil {
		p.Close()
		return nil, errdefs.Host.Errorf("%s: %w", args[0], err)
	}
	p.PID = c.PID
	p.undo.Add(c.Kill)
	p.undo.Add(func() { endChildren(context.WithoutCancel(ctx), c.PID()) })
	if err := p.await(ctx, c, join); err != nil {
		p.Close()
		return nil, errdefs.Host.Errorf("%s: %w: %s", args[0], err, excerpt.Printable(excerpt.LastLines(said.Bytes(), 1)))
	}
	return p, nil
}

// await waits until the namespace has a route: neither program tells it in the same way.
func (p *Peer) await(ctx context.Context, c *child.Child, join func(*Peer, int) bool) error {
	joined := join == nil
	for end := time.Now().Add(startLimit); time.Now().Before(end); {
		if joined = joined || join(p, c.PID()); joined {
			var routes []byte
			p.in(func() { routes, _ = os.ReadFile("/proc/thread-self/net/route") })
			if strings.Count(string(routes), "\ntap0") > 1 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Done():
			return errors.New("it ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("it gives no network")
}

// children are the processes that one started.
func children(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // one that has ended has none
	return strings.Fields(string(b))
}

// joinChild moves the peer's thread into the network namespace of a process's first child, once that has one of its own.
func (p *Peer) joinChild(pid int) bool {
	all := children(pid)
	if len(all) == 0 {
		return false
	}
	path := filepath.Join("/proc", all[0], "ns/net")
	ours, err := os.Readlink("/proc/self/ns/net")
	if its, ierr := os.Readlink(path); err != nil || ierr != nil || its == ours {
		return false
	}
	there, err := os.Open(path) //nolint:gosec // of the kernel's
	if err != nil {
		return false
	}
	defer func() { _ = there.Close() }()
	p.in(func() { err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET) }) //nolint:gosec // descriptors are small
	return err == nil
}

// endChildren kills what a process started: pasta's end leaves its child running, or waiting for a word of pasta's.
func endChildren(ctx context.Context, pid int) {
	for _, name := range children(pid) {
		child, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ticks, err := pidfd.StartTicks(child); err == nil {
			_ = pidfd.Kill(ctx, child, ticks)
		}
	}
}

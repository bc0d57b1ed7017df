// Package ports reaches TCP services of the guest from within, those that listen on its loopback only too, and waits for
// them.
//
// Layer: part of guest/agent. It imports none of ours.
package ports

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Table is where the kernel lists TCP sockets.
const Table = "/proc/net"

const (
	listening   = "0A"             // a socket's state there
	maxAddrs    = 16               // that are tried of one port
	maxListened = 1 << 16          // sockets that are looked at
	dialTime    = 10 * time.Second // a service whose queue is full lets us wait

	// Nothing tells when a socket begins to listen, so that a wait looks again and again, and ever less often.
	firstLook = 10 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

// Listening returns the addresses on which something listens on a port, wildcards as such.
func Listening(table string, port int) ([]netip.Addr, error) {
	var found []netip.Addr
	var failed []error
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(table, name))
		if err != nil {
			failed = append(failed, err) // there may be no IPv6
			continue
		}
		found = append(found, parse(f, port)...)
		_ = f.Close()
	}
	if len(failed) == 2 {
		return nil, errors.Join(failed...)
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found), nil
}

// parse reads a table of sockets. Those that listen come first, so that many connections cost nothing.
func parse(r io.Reader, port int) []netip.Addr {
	var found []netip.Addr
	s := bufio.NewScanner(r)
	s.Scan() // the heading
	for n := 0; n < maxListened && s.Scan(); n++ {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || fields[3] != listening {
			break
		}
		if at, ok := local(fields[1]); ok && int(at.Port()) == port && len(found) < maxAddrs {
			found = append(found, at.Addr())
		}
	}
	return found
}

// local reads an address as the kernel prints it: words in the machine's order, which is little-endian wherever we run.
func local(text string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(addr)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// targets are the addresses to try: the loopback first, then what else something listens on.
func targets(port int) []netip.AddrPort {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	more, _ := Listening(Table, port) // without it, the loopback is what there is
	for _, a := range more {
		if !a.IsUnspecified() && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	out := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		out[i] = netip.AddrPortFrom(a, uint16(port)) //nolint:gosec // the caller has checked it
	}
	return out
}

// ErrRefused is in the chain of an error about a port on which nothing listens.
var ErrRefused = errors.New("nothing listens on it")

// Dial connects to a port of this machine.
func Dial(ctx context.Context, port int) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	var failed error
	for _, at := range targets(port) {
		c, err := d.DialContext(ctx, "tcp", at.String())
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		if !refused(err) && failed == nil {
			failed = err
		}
	}
	if failed == nil {
		failed = ErrRefused
	}
	return nil, fmt.Errorf("port %d: %w", port, failed)
}

// refused reports whether an address only has nobody, or is not there at all, as with IPv6 switched off.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.Is(err, syscall.ENETUNREACH)
}

// Wait returns when something listens on a port, or with ctx's end. It makes no connection: a service would see it.
func Wait(ctx context.Context, port int) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		addrs, err := Listening(Table, port)
		if err != nil || len(addrs) > 0 {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

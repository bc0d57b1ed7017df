// Package hello reads what a client of TLS says first, without being its server.
//
// Layer: network, below gateway. It may import network.
package hello

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/smolvm/smolvm/internal/network"
)

// Hello is what a client said.
type Hello struct {
	Name string // SNI, "" for none
	// Hidden means that another hello may be encrypted in this one, for another name (extension 0xfe0d). Clients send
	// something that looks like it for no reason too; nobody between the two ends can tell.
	Hidden bool
	Raw    []byte // all that was read of it, and perhaps more that followed
}

// extensionECH is encrypted_client_hello.
const extensionECH = 0xfe0d

// maxRaw bounds what is read: the handshake message is at most 64 KiB, in records.
const maxRaw = 80 << 10

var errSeen = errors.New("seen")

// Read reads the first message from c, within limit. What it read is in Raw, whatever the error.
func Read(ctx context.Context, c net.Conn, limit time.Duration) (Hello, error) {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	var h Hello
	seen := false
	err := tls.Server(&tap{Conn: c, got: &h.Raw}, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		h.Name, h.Hidden, seen = i.ServerName, slices.Contains(i.Extensions, extensionECH), true
		return nil, errSeen
	}}).HandshakeContext(context.WithoutCancel(ctx))
	_ = c.SetReadDeadline(time.Time{})
	if seen {
		return h, nil
	}
	if err == nil {
		err = errors.New("no hello")
	}
	return h, fmt.Errorf("it is no TLS: %w", err)
}

// tap keeps what is read and sends nothing.
type tap struct {
	net.Conn
	got *[]byte
}

func (t *tap) Read(b []byte) (int, error) {
	room := maxRaw - len(*t.got)
	if room <= 0 {
		return 0, errors.New("its first message is too long")
	}
	n, err := t.Conn.Read(b[:min(len(b), room)])
	*t.got = append(*t.got, b[:n]...)
	return n, err
}

func (t *tap) Write(b []byte) (int, error) { return len(b), nil }
func (t *tap) Close() error                { return nil }

// SetWriteDeadline does nothing: nothing is written.
func (t *tap) SetWriteDeadline(time.Time) error { return nil }

// Expect reads the first message and returns the connection as it was before, when that is TLS for a canonical name and
// nothing is hidden in it. The error says why it is not.
func Expect(ctx context.Context, c net.Conn, name string, limit time.Duration) (net.Conn, error) {
	h, err := Read(ctx, c, limit)
	if err != nil {
		return nil, err
	}
	if h.Hidden {
		return nil, errors.New("its hello may hide another one (encrypted client hello)")
	}
	if said, err := network.Canonical(h.Name); err != nil || said != name {
		return nil, fmt.Errorf("it asks for %.80q on a connection to %s", h.Name, name)
	}
	return &begun{Conn: c, first: h.Raw}, nil
}

// begun is a connection of which the first bytes were read.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	b.first = nil
	return b.Conn.Read(p)
}

// CloseWrite tells the other side that no more will come.
func (b *begun) CloseWrite() error {
	if w, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

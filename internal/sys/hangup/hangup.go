// Package hangup tells when a connection has ended, whoever reads from it.
//
// Layer: leaf. It imports none of ours.
package hangup

import (
	"net"
	"sync"
)

// Conn is a connection that tells of its end.
type Conn struct {
	net.Conn
	once sync.Once
	gone chan struct{}
}

// Watch tells of the end of c.
func Watch(c net.Conn) *Conn { return &Conn{Conn: c, gone: make(chan struct{})} }

// Gone is closed once a read has failed, or the connection was closed.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

func (c *Conn) end() { c.once.Do(func() { close(c.gone) }) }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.end()
	}
	return n, err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.end()
	return c.Conn.Close()
}

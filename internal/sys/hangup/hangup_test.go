package hangup

import (
	"net"
	"testing"
)

func TestGone(t *testing.T) {
	for name, end := range map[string]func(c *Conn, other net.Conn){
		"closed": func(c *Conn, _ net.Conn) { _ = c.Close() },
		"ended by the other side": func(c *Conn, other net.Conn) {
			_ = other.Close()
			_, _ = c.Read(make([]byte, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			c := Watch(a)
			go func() { _, _ = b.Write([]byte("x")) }()
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			select {
			case <-c.Gone():
				t.Fatal("it has not ended")
			default:
			}
			end(c, b)
			<-c.Gone()
			_ = c.Close()
			_ = b.Close()
		})
	}
}

package dial

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/smolvm/smolvm/internal/network"
)

// Proxy is the host's way out where that is a proxy.
type Proxy struct {
	find func(*url.URL) (*url.URL, error)
}

// ProxyFromEnv reads what the environment says of proxies; nil when it names none. Everything goes through CONNECT, so that
// where only one of the two kinds is named it serves both.
func ProxyFromEnv() *Proxy {
	c := httpproxy.FromEnvironment()
	if c.HTTPSProxy == "" {
		c.HTTPSProxy = c.HTTPProxy
	}
	if c.HTTPSProxy == "" {
		return nil
	}
	return &Proxy{find: c.ProxyFunc()}
}

// For returns the proxy that leads to a name or an address, nil when there is none.
func (p *Proxy) For(host string, port uint16) *url.URL {
	if p == nil {
		return nil
	}
	u, err := p.find(&url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))})
	if err != nil {
		return nil
	}
	return u
}

func host(f network.Flow) string {
	if f.Name != "" {
		return f.Name
	}
	return f.Addr.String()
}

func (d *Dialer) proxy(f network.Flow) *url.URL {
	if f.Proto != network.TCP {
		return nil
	}
	return d.opts.Proxy.For(host(f), f.Port)
}

// throughProxy has a proxy connect. It resolves the name itself and picks among the addresses, so that a name is refused for
// any address that the policy refuses, as far as we can resolve it.
func (d *Dialer) throughProxy(ctx context.Context, f network.Flow, v network.Verdict, proxy *url.URL) (*Conn, error) {
	if f.Name != "" {
		if addrs, err := d.addrs(ctx, f); err == nil {
			if refused := d.anyRefused(f, addrs); refused != nil {
				return nil, refused
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxyAddr(proxy))
	if err != nil {
		return nil, fmt.Errorf("the host's proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if proxy.Scheme == "https" {
		c = tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if err := connectRequest(c, net.JoinHostPort(host(f), strconv.Itoa(int(f.Port))), proxy.User); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("the host's proxy: %w", err)
	}
	if !stop() {
		_ = c.Close()
		return nil, fmt.Errorf("the host's proxy: %w", context.Cause(ctx))
	}
	return &Conn{Conn: c, Verdict: v}, nil
}

func (d *Dialer) anyRefused(f network.Flow, addrs []netip.Addr) error {
	for _, a := range addrs {
		f.Addr = a
		if v := d.opts.Policy().Flow(f); !v.Allow {
			return &Denied{v}
		}
	}
	return nil
}

func proxyAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// connectRequest asks for a tunnel. It reads no further than the answer's head, so that nothing of the tunnel is lost.
func connectRequest(c net.Conn, to string, user *url.Userinfo) error {
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", to, to)
	if user != nil {
		password, _ := user.Password()
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return err
	}
	head := bufio.NewReaderSize(io.LimitReader(byteByByte{c}, 16<<10), 16)
	res, err := http.ReadResponse(head, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", res.Status)
	}
	return nil
}

// byteByByte reads one byte at a time.
type byteByByte struct{ r io.Reader }

func (b byteByByte) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }

package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// TCP listens at ADDRESS:PORT: with TLS where a certificate and its key are named, and else on this host alone. named tells
// which host names mean it.
func TCP(ctx context.Context, address, cert, key string) (_ net.Listener, named func(string) bool, _ error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, errdefs.Invalid.Errorf("listen: %q is no address with a port", address).WithRemedy("ADDRESS:PORT such as 127.0.0.1:8010 or [::1]:8010")
	}
	if (cert == "") != (key == "") {
		return nil, nil, errdefs.Invalid.Errorf("listen: a certificate and its key go together").WithRemedy("smolvm serve --listen ADDRESS:PORT --tls-cert FILE --tls-key FILE")
	}
	named = func(name string) bool { return name == "localhost" || strings.HasSuffix(name, ".localhost") }
	var config *tls.Config
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, nil, errdefs.Invalid.Errorf("listen: the certificate and its key: %w", err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			return nil, nil, errdefs.Invalid.Errorf("listen: the certificate: %w", err)
		}
		config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
		local := named
		named = func(name string) bool { return local(name) || leaf.VerifyHostname(name) == nil }
	} else if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, nil, errdefs.Invalid.Errorf("listen: %s is not of this host alone, and the token would cross the network in the clear", address).
			WithRemedy("smolvm serve --listen ADDRESS:PORT --tls-cert FILE --tls-key FILE, or listen at 127.0.0.1:PORT")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, errdefs.Host.Errorf("listen at %s: %w", address, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, named, nil
}

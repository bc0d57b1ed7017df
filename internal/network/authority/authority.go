// Package authority makes the certificate authority of one VM: its guest trusts it, and its gateway issues certificates by
// which it stands for the names that the guest asks for. The key lives in the memory of the VM's supervisor and gateway only,
// and signs for nobody else.
//
// Layer: part of network, below supervisor/uplink and network/gateway. It imports none of ours.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

const (
	// A guest's clock may be behind.
	early    = 24 * time.Hour
	lifeRoot = 10 * 365 * 24 * time.Hour
	// Clients refuse certificates of servers that live for more than 398 days.
	lifeLeaf = 90 * 24 * time.Hour
	// One that ends so soon is replaced.
	renew = 24 * time.Hour

	// MaxLeaves is how many certificates are remembered: below a wildcard a guest may ask for names without end.
	MaxLeaves = 512

	maxCommonName = 64
)

// New makes an authority: its certificate, and its key as PKCS #8, both DER.
func New() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make an authority's key: %w", err)
	}
	serial := newSerial()
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: serial,
		// Each has a name of its own: libraries find issuers by their names.
		Subject:   pkix.Name{Organization: []string{"SmolVM"}, CommonName: "SmolVM gateway " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore: now.Add(-early), NotAfter: now.Add(lifeRoot),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if cert, err = x509.CreateCertificate(rand.Reader, root, root, private.Public(), private); err != nil {
		return nil, nil, fmt.Errorf("make an authority's certificate: %w", err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return nil, nil, fmt.Errorf("make an authority's key: %w", err)
	}
	return cert, key, nil
}

// newSerial returns a number that nobody guesses, of 16 bytes of which the first is not 0.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// Issuer issues certificates. It is safe for concurrent use.
type Issuer struct {
	root    *x509.Certificate
	signer  *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey // of all leaves

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
	order  [MaxLeaves]string
	next   int
}

// Load makes an issuer of what New made.
func Load(cert, key []byte) (*Issuer, error) {
	root, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w", err)
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if public, same := root.PublicKey.(*ecdsa.PublicKey); !ok || !same || !signer.PublicKey.Equal(public) {
		return nil, errors.New("the authority's key is not its certificate's")
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of leaves: %w", err)
	}
	return &Issuer{root: root, signer: signer, leafKey: leafKey, leaves: map[string]*tls.Certificate{}}, nil
}

// Leaf returns the certificate for one canonical name, and only that name.
func (i *Issuer) Leaf(name string) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	known, there := i.leaves[name]
	if there && now.Before(known.Leaf.NotAfter.Add(-renew)) {
		return known, nil
	}
	made, err := i.issue(name, now)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %q: %w", name, err)
	}
	if !there {
		delete(i.leaves, i.order[i.next])
		i.order[i.next] = name
		i.next = (i.next + 1) % MaxLeaves
	}
	i.leaves[name] = made
	return made, nil
}

func (i *Issuer) issue(name string, now time.Time) (*tls.Certificate, error) {
	subject := pkix.Name{CommonName: name}
	if len(name) > maxCommonName {
		subject = pkix.Name{Organization: []string{"SmolVM"}}
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: newSerial(), Subject: subject, DNSNames: []string{name},
		NotBefore: now.Add(-early), NotAfter: now.Add(lifeLeaf), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, i.root, i.leafKey.Public(), i.signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.leafKey, Leaf: leaf}, nil
}

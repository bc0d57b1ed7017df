// Package control is what a supervisor and its VM's gateway tell each other: JSON lines over a pair of stream sockets. The
// gateway works for a hostile guest, so that its side of it is not trusted with more than the guest could do anyway.
//
// Layer: part of network, below supervisor and network/gateway. It may import network/secret, api,
// errdefs.
package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// Command is the hidden subcommand under which the program runs a gateway.
const Command = "gateway"

// EnvDNS names resolvers, with commas between, for policies that name none.
const EnvDNS = "SMOLVM_DNS"

// Environment are the variables that a gateway looks at: where its host's proxy and resolvers are. Whoever stands between
// the user and it passes them on.
func Environment() []string {
	return []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", EnvDNS}
}

// The descriptors that a gateway inherits.
const (
	FDWire    = 3 // its end of the card's pair of datagram sockets
	FDControl = 4 // its end of the pair that these lines go over
	FDNames   = 5 // the synthetic names, read first, then added to
)

// MTU is the card's. A large one is what makes a network without offloads fast.
const MTU = 65520

// GuestMAC and GatewayMAC are the two cards on a VM's wire. They never change, so that what a guest remembers stays right.
func GuestMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x53, 0x4d, 0, 0, 1} }

// GatewayMAC is the gateway's card.
func GatewayMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x53, 0x4d, 0, 0, 2} }

// Guest is the guest's address with its network. Every VM has a network of its own, so that all have the same.
func Guest() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 83, 0, 2}), 30) }

// Gateway is the gateway's address, and its name server's.
func Gateway() netip.Addr { return netip.AddrFrom4([4]byte{10, 83, 0, 1}) }

// Request is a line to the gateway.
type Request struct {
	Seq    uint64             `json:"seq"`
	Start  *Start             `json:"start,omitempty"` // the first one
	Policy *api.NetworkPolicy `json:"policy,omitempty"`
	// Secrets replaces all secrets; with Policy, both are put in force together.
	Secrets *Secrets `json:"secrets,omitempty"`
	Stats   bool     `json:"stats,omitempty"`
}

// Secrets are all secrets of a VM, with their values.
type Secrets struct {
	List []secret.Secret `json:"list"`
}

// Start says how a gateway works.
type Start struct {
	Parent int    `json:"parent"`        // who must be alive
	UID    uint32 `json:"uid,omitempty"` // who to become; 0: stay
	// ReadFiles and ReadDirs are all that it may open.
	ReadFiles []string `json:"read_files,omitempty"`
	ReadDirs  []string `json:"read_dirs,omitempty"`
	// Authority is what the guest trusts. Whoever has its key can stand for any name to this guest: it is never written anywhere.
	Authority *Authority `json:"authority,omitempty"`
	// Plain has it leave nothing to the other side of its wire, nor take such, to tell what offloads are good for. Where the
	// wire is a packet socket, the other side must do likewise.
	Plain bool `json:"plain,omitempty"`
}

// Authority is a certificate authority, as network/authority makes it.
type Authority struct {
	Cert []byte `json:"cert"` // DER
	Key  []byte `json:"key"`  // PKCS #8, DER
}

// String hides the key.
func (a Authority) String() string { return fmt.Sprintf("authority of %d bytes, key ***", len(a.Cert)) }

// GoString hides the key.
func (a Authority) GoString() string { return a.String() }

// Answer is a line from the gateway: the answer to a request (Seq), or a record of what it did (Seq 0).
type Answer struct {
	Seq    uint64         `json:"seq,omitempty"`
	Error  string         `json:"error,omitempty"`
	Ready  *Ready         `json:"ready,omitempty"`
	Record *api.NetRecord `json:"record,omitempty"`
	Stats  *Stats         `json:"stats,omitempty"`
}

// Ready tells which measures confine the gateway, and which are missing.
type Ready struct {
	InForce []string `json:"in_force,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// Stats are a gateway's counters since it started.
type Stats struct {
	Open        int              `json:"open"`      // flows
	Flows       int64            `json:"flows"`     // that were allowed
	Refused     int64            `json:"refused"`   // by the policy
	Limited     int64            `json:"limited"`   // by a limit
	Questions   int64            `json:"questions"` // of DNS
	BytesIn     int64            `json:"bytes_in"`  // to the guest
	BytesOut    int64            `json:"bytes_out"` // from the guest
	LostRecords int64            `json:"lost_records"`
	Frames      map[string]int64 `json:"frames,omitempty"` // dropped, by reason
	// LargeIn and LargeOut are frames to and from the guest that were several segments of TCP in one, see wire.Offload.
	LargeIn  int64 `json:"large_in,omitempty"`
	LargeOut int64 `json:"large_out,omitempty"`
}

// maxLine bounds a line: a policy may have thousands of rules.
const maxLine = 4 << 20

// Conn is one end. Reading and writing may go on at once; each by any number of goroutines for writing, by one for reading.
type Conn struct {
	rw io.ReadWriteCloser
	in *bufio.Scanner
	mu sync.Mutex
}

// NewConn speaks over rw.
func NewConn(rw io.ReadWriteCloser) *Conn {
	in := bufio.NewScanner(rw)
	in.Buffer(nil, maxLine)
	return &Conn{rw: rw, in: in}
}

// Write sends a Request or an Answer.
func (c *Conn) Write(line any) error {
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("gateway control: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.rw.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("gateway control: %w", err)
	}
	return nil
}

// Read waits for a line; io.EOF is the other side's end.
func (c *Conn) Read(line any) error {
	if !c.in.Scan() {
		if err := c.in.Err(); err != nil {
			return fmt.Errorf("gateway control: %w", err)
		}
		return io.EOF
	}
	if err := json.Unmarshal(c.in.Bytes(), line); err != nil {
		return fmt.Errorf("gateway control: %w", err)
	}
	return nil
}

// Close ends both directions.
func (c *Conn) Close() error { return c.rw.Close() }

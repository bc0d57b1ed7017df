package egress

// row is one way out.
type row struct {
	name  string
	probe []string // of client.py, with its arguments
	want  string   // allow or deny
	// asks means that the gateway itself asks the resolver about the name, which is allowed; nothing else may leave.
	asks bool
}

// The servers' addresses, and what stands for the rest of the world.
const (
	public   = "198.51.100.1"
	other    = "198.51.100.2"
	inRange  = "198.51.100.7"
	resolver = "198.51.100.53"
	own      = "198.51.100.254" // the host's
	web      = "198.51.100.9"   // speaks HTTP
	private  = "10.0.0.1"
	metadata = "169.254.169.254"
)

// allowArgs is the policy of allowRows.
func allowArgs(port string) []string {
	return []string{
		"--allow", "good.test:8080", "--allow", "*.wild.test:8080", "--allow", inRange + "/32:80", "--allow", "host.smolvm.internal:" + port,
		"--allow", "udp.test:5000/udp", "--dns", resolver,
	}
}

func allowRows(hostPort, otherPort string) []row {
	return []row{
		{"allowed name", []string{"tcp", "good.test", "8080"}, "allow", true},
		{"allowed name below a wildcard", []string{"tcp", "ok.wild.test", "8080"}, "allow", true},
		{"allowed name, other port", []string{"tcp", "good.test", "443"}, "deny", false},
		{"allowed range", []string{"tcp", inRange, "80"}, "allow", false},
		{"allowed range, other port", []string{"tcp", inRange, "443"}, "deny", false},
		{"allowed name over UDP", []string{"udp", "udp.test", "5000"}, "allow", true},
		{"direct IP of an allowed name", []string{"tcp", public, "80"}, "deny", false},
		{"other name", []string{"tcp", "bad.test", "8080"}, "deny", false},
		{"the wildcard's own name", []string{"tcp", "wild.test", "8080"}, "deny", false},
		{"rebinding: next answer is private", []string{"tcp", "rebind.wild.test", "8080", "2"}, "deny", true},
		{"second answer: private first, public behind it", []string{"tcp", "second.wild.test", "8080"}, "allow", true},
		{"CNAME chain to a private address", []string{"tcp", "alias.wild.test", "8080"}, "deny", true},
		{"CNAME chain to a public address", []string{"tcp", "calias.wild.test", "8080"}, "allow", true},
		{"name of a private address", []string{"tcp", "inside.wild.test", "8080"}, "deny", true},
		{"name of the host's own address", []string{"tcp", "own.wild.test", "8080"}, "deny", true},
		{"name with NAT64 address of a private one", []string{"tcp", "nat64.wild.test", "8080"}, "deny", true},
		{"name with IPv4-mapped private address", []string{"tcp", "mapped.wild.test", "8080"}, "deny", true},
		{"name with IPv6 only", []string{"tcp", "six.wild.test", "8080"}, "allow", true},
		{"DoH at a public resolver", []string{"doh", resolver}, "deny", false},
		{"DoT at a public resolver", []string{"tcp", resolver, "853"}, "deny", false},
		{"DNS at a public resolver, UDP", []string{"dns", "secret.evil.test", "1", resolver}, "deny", false},
		{"DNS at a public resolver, TCP", []string{"tcp", resolver, "53"}, "deny", false},
		{"DNS tunnel: TXT of a foreign name", []string{"dns", "secret.evil.test", "16"}, "deny", false},
		{"DNS tunnel: A of a foreign name", []string{"dns", "secret.evil.test", "1"}, "deny", false},
		{"DNS tunnel: TXT below an allowed name", []string{"dns", "secret.wild.test", "16"}, "deny", false},
		{"DNS tunnel: NULL below an allowed name", []string{"dns", "secret.wild.test", "10"}, "deny", false},
		{"HTTPS record (ECH)", []string{"dns", "good.test", "65"}, "deny", false},
		{"AAAA", []string{"dns", "good.test", "28"}, "deny", false},
		{"QUIC to an allowed name", []string{"udp", "ok.wild.test", "443"}, "deny", false},
		{"UDP to an allowed range", []string{"udp", inRange, "5000"}, "deny", false},
		{"ICMP to an allowed range", []string{"ping", inRange}, "deny", false},
		{"IPv6 frames and sockets", []string{"ipv6", "2001:db8:1::1"}, "deny", false},
		{"fragments", []string{"fragments", public}, "deny", false},
		{"IP options (source route)", []string{"options", inRange, public}, "deny", false},
		{"TCP options, odd segments", []string{"tcpoptions", public}, "deny", false},
		{"other IP protocols", []string{"protocols", inRange}, "deny", false},
		{"spoofed sources", []string{"spoofed", inRange}, "deny", false},
		{"broadcast and multicast", []string{"broadcast", "5000"}, "deny", false},
		{"ARP tricks; the network goes on", []string{"arp", "good.test"}, "allow", true},
		{"metadata by address", []string{"tcp", metadata, "80"}, "deny", false},
		{"metadata by an allowed name", []string{"tcp", "meta.wild.test", "8080"}, "deny", true},
		{"metadata by its own name", []string{"tcp", "metadata.google.internal", "80"}, "deny", false},
		{"the host's loopback, opened port", []string{"tcp", "host.smolvm.internal", hostPort}, "allow", false},
		{"the host's loopback, other port", []string{"tcp", "host.smolvm.internal", otherPort}, "deny", false},
		{"the host's loopback by other names", []string{"any", otherPort, "loop.wild.test", "localhost.wild.test"}, "deny", true},
		{"the host's own address", []string{"tcp", own, otherPort}, "deny", false},
		{"the gateway's address", []string{"any", otherPort, "10.83.0.1", "10.83.0.0", "10.83.0.3"}, "deny", false},
		{"synthetic addresses of no name", []string{"any", "80", "198.18.0.1", "198.18.99.99", "198.19.255.254"}, "deny", false},
	}
}

func openRows(otherPort string) []row {
	return []row{
		{"public address, TCP", []string{"tcp", public, "80"}, "allow", false},
		{"public address, UDP", []string{"udp", public, "5000"}, "allow", false},
		{"public address, port 22", []string{"tcp", public, "22"}, "allow", false},
		{"QUIC", []string{"udp", public, "443"}, "allow", false},
		{"name", []string{"tcp", "good.test", "80"}, "allow", true},
		{"name with IPv6 only", []string{"tcp", "six.wild.test", "80"}, "allow", true},
		{"TXT", []string{"dns", "txt.test", "16"}, "allow", true},
		{"DNS at a public resolver", []string{"dns", "good.test", "1", resolver}, "allow", true},
		{"name of a private address", []string{"dns", "inside.wild.test", "1"}, "deny", true},
		{"rebinding: next answer is private", []string{"tcp", "rebind.wild.test", "80", "2"}, "deny", true},
		{"name with NAT64 address of a private one", []string{"tcp", "nat64.wild.test", "80"}, "deny", true},
		{"names in reverse of private addresses", []string{"dns", "1.0.0.10.in-addr.arpa", "12"}, "deny", false},
		{"private addresses", []string{"any", "80", private, "172.16.0.1", "192.168.0.1", "100.64.0.1", "192.0.0.1"}, "deny", false},
		{"private addresses, UDP", []string{"udp", private, "5000"}, "deny", false},
		{"metadata", []string{"any", "80", metadata, "168.63.129.16"}, "deny", false},
		{"metadata by name", []string{"tcp", "meta.wild.test", "80"}, "deny", true},
		{"spellings of a private address", []string{
			"any", "80", "167772161", "012.0.0.1", "0x0a000001", "10.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "10.0.0.1.",
		}, "deny", false},
		{"the host's loopback", []string{"any", otherPort, "host.smolvm.internal", "loop.wild.test", "0.0.0.0"}, "deny", true},
		{"the host's own address", []string{"tcp", own, otherPort}, "deny", false},
		{"ICMP", []string{"ping", public}, "deny", false},
		{"IPv6 frames and sockets", []string{"ipv6", "2001:db8:1::1"}, "deny", false},
		{"fragments to a private address", []string{"fragments", private}, "deny", false},
		{"IP options (source route)", []string{"options", public, private}, "deny", false},
		{"spoofed sources", []string{"spoofed", public}, "deny", false},
		{"other IP protocols", []string{"protocols", public}, "deny", false},
		{"broadcast and multicast", []string{"broadcast", "5000"}, "deny", false},
	}
}

func noneRows() []row {
	return []row{
		{"public address, TCP", []string{"tcp", public, "80"}, "deny", false},
		{"public address, UDP", []string{"udp", public, "5000"}, "deny", false},
		{"name", []string{"dns", "good.test", "1"}, "deny", false},
		{"private address", []string{"tcp", private, "80"}, "deny", false},
	}
}

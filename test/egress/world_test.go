package egress

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// The parts that the test's program plays.
const (
	partVar    = "SMOLVM_EGRESS_PART"
	partInside = "inside" // the host, in a network namespace of its own
	partWorld  = "world"  // everything outside, in another one
)

// seen is something that reached the outside.
type seen struct {
	What string // "dns NAME", or "udp DST:PORT" and the like for every packet
}

// world is the outside, a process of its own.
type world struct {
	mu   sync.Mutex
	seen []string
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "world:", err)
		os.Exit(1)
	}
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput() //nolint:noctx // ends at once
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// startWorld starts the outside and connects our namespace with it.
func startWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMain$")
	cmd.Env = append(os.Environ(), partVar+"="+partWorld)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	for _, args := range []string{
		"link set lo up", "link add eg0 type veth peer name eg1", fmt.Sprintf("link set eg1 netns %d", cmd.Process.Pid),
		"addr add 198.51.100.254/24 dev eg0", "link set eg0 up", "route add default via 198.51.100.1",
		"-6 addr add 2001:db8:1::254/64 dev eg0 nodad", "-6 route add default via 2001:db8:1::1",
	} {
		if err := ip(strings.Fields(args)...); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.WriteString(in, "go\n")
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the outside says %q", lines.Text())
	}
	go func() {
		for lines.Scan() {
			var s seen
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				w.mu.Lock()
				w.seen = append(w.seen, s.What)
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// take returns what reached the outside since the last time.
func (w *world) take() []string {
	time.Sleep(60 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.seen
	w.seen = nil
	return s
}

// runWorld is the outside.
func runWorld() {
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for _, args := range []string{"link set lo up", "addr add 198.51.100.1/24 dev eg1", "-6 addr add 2001:db8:1::1/64 dev eg1 nodad"} {
		must(ip(strings.Fields(args)...))
	}
	for _, a := range []string{
		other, inRange, resolver, web, private, metadata, "172.16.0.1", "192.168.0.1", "100.64.0.1", "192.0.0.1", "168.63.129.16", "10.83.0.1", "10.83.0.3",
	} {
		must(ip("addr", "add", a+"/32", "dev", "eg1"))
	}
	for _, a := range []string{"64:ff9b::a00:1", "fd00::1"} {
		must(ip("-6", "addr", "add", a+"/128", "dev", "eg1", "nodad"))
	}
	must(ip("link", "set", "eg1", "up"))
	out := &printer{enc: json.NewEncoder(os.Stdout)}
	go sniff(out)
	listeners := map[int]net.Listener{}
	for _, port := range []int{22, 53, 80, 443, 853, 5000, 8080} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)) //nolint:noctx // ends with the process
		must(err)
		listeners[port] = l
		if port != 80 && port != 443 {
			go greet(l)
		}
	}
	startSite(out, listeners[80], listeners[443])
	for _, port := range []int{443, 5000} {
		p, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", port)) //nolint:noctx // ends with the process
		must(err)
		go echo(p)
	}
	for _, a := range []string{resolver, public} {
		p, err := net.ListenPacket("udp4", a+":53") //nolint:noctx // ends with the process
		must(err)
		go answer(p, out)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

type printer struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (p *printer) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.enc.Encode(seen{fmt.Sprintf(format, args...)})
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			_, _ = fmt.Fprintf(c, "hello from %s\n", c.LocalAddr())
			_, _ = io.Copy(c, c)
		}()
	}
}

func echo(p net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = p.WriteTo(b[:n], from)
	}
}

// sniff tells of every packet that comes in.
func sniff(out *printer) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_ALL)))
	must(err)
	link, err := net.InterfaceByName("eg1")
	must(err)
	must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Index}))
	b := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		must(err)
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if what := describe(htons(ll.Protocol), b[:n]); what != "" {
			out.say("%s", what)
		}
	}
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// describe says what a packet is; "" for what belongs to the wire itself.
func describe(kind uint16, p []byte) string {
	var proto byte
	var dst netip.Addr
	var rest []byte
	switch {
	case kind == unix.ETH_P_IP && len(p) >= 20:
		proto, dst, rest = p[9], netip.AddrFrom4([4]byte(p[16:20])), p[int(p[0]&15)*4:]
	case kind == unix.ETH_P_IPV6 && len(p) >= 40:
		proto, dst, rest = p[6], netip.AddrFrom16([16]byte(p[24:40])), p[40:]
		if proto == unix.IPPROTO_ICMPV6 || proto == 0 || dst.IsMulticast() { // neighbours
			return ""
		}
	default:
		return ""
	}
	if (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) && len(rest) >= 4 {
		name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]
		return name + " " + netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:])).String()
	}
	return fmt.Sprintf("protocol %d %s", proto, dst)
}

// answer is the outside's name server.
func answer(p net.PacketConn, out *printer) {
	zone := map[string][]string{
		"good.test": {public}, "udp.test": {public}, "bad.test": {public}, "wild.test": {public}, "ok.wild.test": {public}, "second.wild.test": {private, public},
		"inside.wild.test": {private}, "own.wild.test": {own}, "meta.wild.test": {metadata}, "loop.wild.test": {"127.0.0.1"},
		"localhost.wild.test": {"127.0.0.1"}, "nat64.wild.test": {"64:ff9b::a00:1"}, "mapped.wild.test": {"::ffff:10.0.0.1"},
		"web.test": {web}, "other.web.test": {web}, "expired.web.test": {web}, "self.web.test": {web}, "misnamed.web.test": {web}, "opaque.test": {web},
		"grease.test": {web}, "closed.test": {web}, "inside.web.test": {private}, "six.wild.test": {"2001:db8:1::1"}, "inner.other.test": {private},
	}
	for _, name := range serviceNames() {
		zone[name] = []string{web}
	}
	alias := map[string]string{"alias.wild.test": "inner.other.test", "calias.wild.test": "good.test"}
	b := make([]byte, 4096)
	rebind := 0
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(b[:n]) != nil || len(q.Questions) != 1 {
			continue
		}
		name, kind := strings.ToLower(strings.TrimSuffix(q.Questions[0].Name.String(), ".")), q.Questions[0].Type
		out.say("dns %s", name)
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
		add := func(owner string, body dnsmessage.ResourceBody) {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner + "."), Class: dnsmessage.ClassINET}, Body: body,
			})
		}
		owner := name
		if to, ok := alias[name]; ok {
			add(name, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to + ".")})
			owner = to
		}
		addrs, known := zone[owner]
		if name == "rebind.wild.test" {
			addrs, known = []string{public}, true
			if kind == dnsmessage.TypeA {
				if rebind++; rebind%2 == 0 {
					addrs = []string{private}
				}
			}
		}
		if name == "txt.test" {
			known = true
			if kind == dnsmessage.TypeTXT {
				add(name, &dnsmessage.TXTResource{TXT: []string{"text"}})
			}
		}
		if !known {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range addrs {
			switch a := netip.MustParseAddr(a); {
			case a.Is4() && kind == dnsmessage.TypeA:
				add(owner, &dnsmessage.AResource{A: a.As4()})
			case a.Is6() && kind == dnsmessage.TypeAAAA:
				add(owner, &dnsmessage.AAAAResource{AAAA: a.As16()})
			}
		}
		if packed, err := m.Pack(); err == nil {
			_, _ = p.WriteTo(packed, from)
		}
	}
}
